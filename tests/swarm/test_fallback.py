"""The rest of a body from outside: checked as a whole, its end held back until it is right."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.errors import BlobFailed, UpstreamError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.store.ports import OpenData
from p2pdist.swarm.fallback import HOLD_BACK_BYTES, stream_checked

NAME = ImageName("docker.io", "library/app")
BLOB = os.urandom(1_000_000)


class Body:
    def __init__(self, data: bytes, size_bytes: int, start: int) -> None:
        self.size_bytes, self.start = size_bytes, start
        self._data = data

    @property
    def arrived_bytes(self) -> int:
        return len(self._data) - self.start

    def limit_buffer(self, nbytes: int) -> None:
        """All of it is here."""

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(self.start, len(self._data), 70_000):
            yield self._data[at : min(at + 70_000, len(self._data))]


class Source:
    """Serves `data` for every digest and notes where each body started."""

    label = "upstream"

    def __init__(self, data: bytes, *, size_bytes: int | None = None) -> None:
        self.data = data
        self.size_bytes = len(data) if size_bytes is None else size_bytes
        self.starts: list[int] = []

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.starts.append(start)
        yield Body(self.data, self.size_bytes, start)


async def collect(
    source: Source,
    start: int = 0,
    stop: int = len(BLOB),
    prefix: OpenData | None = None,
    got: bytearray | None = None,
) -> bytes:
    got = bytearray() if got is None else got
    stream = stream_checked(
        source,
        NAME,
        digest_of(BLOB),
        len(BLOB),
        start=start,
        stop=stop,
        prefix=prefix,
        count=lambda _: None,
    )
    async for data in stream:
        got += data
    return bytes(got)


async def test_a_whole_body_comes_through() -> None:
    assert await collect(Source(BLOB)) == BLOB


class Prefix:
    """What lies here (`OpenData`)."""

    fileno = None

    async def read(self, offset: int, length: int) -> bytes:
        return BLOB[offset : min(500_000, offset + length)]

    def close(self) -> None: ...


async def test_a_verified_prefix_is_not_fetched_again() -> None:
    source = Source(BLOB)

    rest = await collect(source, start=500_000, prefix=Prefix())

    assert rest == BLOB[500_000:]
    assert source.starts == [500_000]


async def test_a_range_without_its_prefix_is_still_checked_as_a_whole() -> None:
    source = Source(BLOB)

    assert await collect(source, start=500_000) == BLOB[500_000:]
    assert source.starts == [0]


async def test_a_range_in_the_middle_ends_where_it_was_asked_to() -> None:
    assert await collect(Source(BLOB), start=10, stop=99) == BLOB[10:99]


async def test_a_wrong_body_never_looks_complete() -> None:
    wrong = BLOB[:-1] + bytes([BLOB[-1] ^ 1])
    got = bytearray()

    with pytest.raises(BlobFailed):
        await collect(Source(wrong), got=got)

    assert len(got) <= len(BLOB) - HOLD_BACK_BYTES


@pytest.mark.parametrize("wrong_at", [5, 400_000, len(BLOB) - 1])
@pytest.mark.parametrize(("start", "stop"), [(0, 1000), (300_000, 700_000), (0, len(BLOB) - 1)])
async def test_a_range_does_not_look_complete_before_its_blob_has_the_digest(
    start: int, stop: int, wrong_at: int
) -> None:
    """Also where the wrong byte lies outside of it: nothing else says that it is right."""
    wrong = bytearray(BLOB)
    wrong[wrong_at] ^= 1
    got = bytearray()

    with pytest.raises(BlobFailed):
        await collect(Source(bytes(wrong)), start=start, stop=stop, got=got)

    assert len(got) <= max(0, stop - start - HOLD_BACK_BYTES)


async def test_a_short_body_fails() -> None:
    with pytest.raises(BlobFailed):
        await collect(Source(BLOB[:600_000], size_bytes=len(BLOB)))


async def test_another_size_is_the_upstreams_fault() -> None:
    with pytest.raises(UpstreamError, match="999999 bytes there"):
        await collect(Source(BLOB[:-1]))
