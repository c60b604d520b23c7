"""Small blobs from outside of the swarm: what is read of them, and when it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.errors import ErrorReason
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry.reading.net import BadAnswer
from p2pdist.swarm.outside import SMALL_BYTES_MAX, NotSmall, read_single

NAME = ImageName("docker.io", "library/app")
PIECE = 64 * 1024
SMALL = b"small " * 1000
LARGE = bytes(100 * PIECE)


class Body:
    """A blob that counts what is read of it."""

    def __init__(self, data: bytes, told: int | None) -> None:
        self.size_bytes = told
        self.arrived_bytes = 0
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), PIECE):
            piece = self._data[at : at + PIECE]
            self.arrived_bytes += len(piece)
            yield piece

    def limit_buffer(self, nbytes: int) -> None: ...


class Source:
    label = "upstream"

    def __init__(self, data: bytes, told: int | None = None) -> None:
        self.body = Body(data, told)
        self.opened = 0

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.opened += 1
        yield self.body


async def test_a_small_blob_is_read_whatever_its_size_was_said_to_be() -> None:
    for told in (None, len(SMALL), 10):
        assert await read_single(Source(SMALL, told), NAME, digest_of(SMALL)) == SMALL


async def test_other_bytes_than_those_of_the_digest_count_for_nothing() -> None:
    with pytest.raises(BadAnswer) as caught:
        await read_single(Source(SMALL), NAME, digest_of(b"other"))

    assert caught.value.reason is ErrorReason.REGISTRY_ERROR


@pytest.mark.parametrize("told", [None, 10, len(LARGE)])
async def test_of_a_large_blob_no_more_than_a_chunk_is_read(told: int | None) -> None:
    source = Source(LARGE, told)

    with pytest.raises(NotSmall) as caught:
        await read_single(source, NAME, digest_of(LARGE))

    assert caught.value.size_bytes == told
    assert source.body.arrived_bytes <= SMALL_BYTES_MAX + PIECE


async def test_a_body_that_is_said_to_be_large_is_not_read() -> None:
    source = Source(LARGE, len(LARGE))

    with pytest.raises(NotSmall) as caught:
        await read_single(source, NAME, digest_of(LARGE))

    assert source.body.arrived_bytes == 0
    assert caught.value.reason is ErrorReason.REGISTRY_ERROR
