"""Blobs that only some may read: one body for all who wait, each under its repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pdist.errors import BlobFailed, RegistryError, UpstreamError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import CACHE
from p2pdist.registry_proxy.kept_blobs import SLICE_BYTES, KeptBlob, KeptBlobs
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import HOLD_BACK_BYTES
from tests.fakes.pulling import random_bytes

NAME = ImageName("registry.test", "alice/app")
OTHER = ImageName("registry.test", "bob/app")
DATA = random_bytes(3 * SLICE_BYTES + 1234, 5)
DIGEST = digest_of(DATA)


class Body:
    def __init__(self, source: Source, start: int) -> None:
        self.size_bytes: int | None = len(source.data)
        self.arrived_bytes = 0
        self._source = source
        self._start = start

    def limit_buffer(self, nbytes: int) -> None: ...

    async def chunks(self) -> AsyncIterator[bytes]:
        source = self._source
        for at in range(self._start, len(source.data), 100_000):
            if source.breaks_at is not None and at >= source.breaks_at:
                source.breaks_at = None
                raise UpstreamError("broke off")
            if source.halt_at is not None and at >= source.halt_at:
                await source.go_on.wait()
            yield source.data[at : at + 100_000]


class Source:
    label = UPSTREAM

    def __init__(self, data: bytes = DATA) -> None:
        self.data = data
        self.opened = 0
        self.breaks_at: int | None = None
        self.halt_at: int | None = None
        self.go_on = asyncio.Event()
        self.left = asyncio.Event()
        self.refusal: UpstreamError | None = None

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.opened += 1
        if self.refusal is not None:
            raise self.refusal
        try:
            yield Body(self, start)
        finally:
            self.left.set()


@pytest.fixture
async def blobs(tmp_path: Path) -> AsyncIterator[KeptBlobs]:
    kept = KeptBlobs(tmp_path / "callers", max_bytes=2 * len(DATA), linger_s=0.05)
    yield kept
    await kept.close()


USED: dict[str, int] = {}


@pytest.fixture(autouse=True)
def used() -> None:
    USED.clear()


def note(label: str, nbytes: int) -> None:
    USED[label] = USED.get(label, 0) + nbytes


def opened(blobs: KeptBlobs, source: Source, name: ImageName = NAME) -> KeptBlob:
    found = blobs.open(name, DIGEST, len(DATA), source, note)
    assert found is not None
    return found


async def read(
    blob: KeptBlob, start: int = 0, stop: int = len(DATA), *, into: bytearray | None = None
) -> bytes:
    got = bytearray() if into is None else into
    try:
        async for piece in blob.read(start, stop):
            assert isinstance(piece, bytes)
            got += piece
    finally:
        blob.close()
    return bytes(got)


async def test_all_who_wait_get_one_body(blobs: KeptBlobs) -> None:
    source = Source()
    bodies = await asyncio.gather(*(read(opened(blobs, source)) for _ in range(5)))

    assert all(body == DATA for body in bodies)
    assert source.opened == 1
    assert await read(opened(blobs, source), 1_500_000, 2_500_001) == DATA[1_500_000:2_500_001]
    assert (source.opened, USED[CACHE]) == (1, 1_000_001)
    assert blobs.size_of(NAME, DIGEST) == len(DATA)


async def test_another_repository_gets_nothing_of_it(blobs: KeptBlobs) -> None:
    await read(opened(blobs, Source()))
    empty = Source()
    empty.refusal = UpstreamError("not there", status=404)

    assert blobs.size_of(OTHER, DIGEST) is None
    with pytest.raises(RegistryError):
        await read(opened(blobs, empty, OTHER))


async def test_wrong_bytes_are_never_whole_and_not_kept(blobs: KeptBlobs) -> None:
    wrong = Source(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    got = bytearray()
    with pytest.raises(BlobFailed):
        await read(opened(blobs, wrong), into=got)

    assert len(got) <= len(DATA) - HOLD_BACK_BYTES
    assert await read(opened(blobs, Source())) == DATA


@pytest.mark.parametrize("data", [DATA[:-100], DATA + b"more"], ids=["short", "long"])
async def test_a_body_of_another_length_fails(blobs: KeptBlobs, data: bytes) -> None:
    with pytest.raises(BlobFailed):
        await read(opened(blobs, Source(data)))


async def test_a_body_that_breaks_off_goes_on(blobs: KeptBlobs) -> None:
    source = Source()
    source.breaks_at = 1_200_000
    assert await read(opened(blobs, source)) == DATA
    assert source.opened == 2


async def test_what_nobody_reads_any_more_is_given_up(blobs: KeptBlobs) -> None:
    source = Source()
    source.halt_at = 2_000_000
    blob = opened(blobs, source)
    async for _ in blob.read(0, len(DATA)):
        break
    blob.close()
    async with asyncio.timeout(5):
        await source.left.wait()
    source.go_on.set()

    assert await read(opened(blobs, source)) == DATA
    assert source.opened == 2


async def test_what_rotted_on_the_disk_is_not_served(blobs: KeptBlobs, tmp_path: Path) -> None:
    await read(opened(blobs, Source()))
    (file,) = (tmp_path / "callers").iterdir()
    with file.open("r+b") as rotting:
        rotting.seek(SLICE_BYTES + 5)
        rotting.write(b"rot")

    blob = opened(blobs, Source())
    with pytest.raises(BlobFailed):
        await read(blob, SLICE_BYTES, len(DATA))
    assert await read(opened(blobs, Source())) == DATA


async def test_the_oldest_make_room_and_what_is_read_stays(blobs: KeptBlobs) -> None:
    third = ImageName("registry.test", "carol/app")
    source = Source()
    await read(opened(blobs, source))
    reading = opened(blobs, source, OTHER)
    await read(opened(blobs, source, third))

    assert blobs.size_of(NAME, DIGEST) is None
    assert blobs.open(third, digest_of(b"x"), 3 * len(DATA), source, note) is None
    assert await read(reading) == DATA


async def test_a_restart_begins_with_nothing(blobs: KeptBlobs, tmp_path: Path) -> None:
    await read(opened(blobs, Source()))
    again = KeptBlobs(tmp_path / "callers", max_bytes=len(DATA))

    assert list((tmp_path / "callers").iterdir()) == []
    assert again.size_of(NAME, DIGEST) is None
    await again.close()
