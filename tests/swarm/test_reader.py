"""Where a body goes on when the swarm cannot, and how it ends when nobody can."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pdist.errors import BlobFailed, ErrorReason, RegistryError, UpstreamError
from p2pdist.exchange.frames import Retract
from p2pdist.model.ids import Digest
from p2pdist.model.members import Role
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import FileSpan, PullContext
from p2pdist.registry.reading.net import BadAnswer
from p2pdist.store.blob import Blob
from p2pdist.swarm.core.wanting import Wanting
from p2pdist.swarm.fallback import HOLD_BACK_BYTES
from p2pdist.swarm.reader import SwarmReader
from tests.swarm.active_parts import Motion, SignedMap, in_motion, some_bytes
from tests.swarm.links import link, real

NAME = ImageName("docker.io", "library/app")
DATA = some_bytes(4.5)
TRUE = SignedMap(DATA, b"t")
LAST = TRUE.geometry.chunk_count - 1


class Body:
    arrived_bytes = 0

    def __init__(self, data: bytes, size_bytes: int) -> None:
        self.size_bytes, self._data = size_bytes, data

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 70_000):
            yield self._data[at : at + 70_000]

    def limit_buffer(self, nbytes: int) -> None: ...


class Outside:
    """A registry that has `data` for every digest, or is away (`error`); `back` is awaited before a
    body."""

    label = "upstream"

    def __init__(self, data: bytes | None) -> None:
        self.data = data
        self.error = UpstreamError("away")
        self.starts: list[int] = []
        self.back: Callable[[], Awaitable[None]] | None = None

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.starts.append(start)
        if self.back is not None:
            await self.back()
        if self.data is None:
            raise self.error
        yield Body(self.data[start:], len(self.data))


def reader_of(
    motion: Motion,
    *outside: Outside,
    size_bytes: int = len(DATA),
    sticky: bool = False,
    forsaken: bool = False,
    context: PullContext | None = None,
) -> SwarmReader:
    return SwarmReader(
        motion.active,
        NAME,
        context or PullContext("test", sticky),
        outside,
        size_bytes=size_bytes,
        used_fallback=lambda *_: None,
        forsaken=lambda: forsaken,
        patience_s=0.2,
    )


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tested is where it goes, not how long it waits there."""
    for name in ("FIRST_WAIT_S", "GAP_S", "FORSAKEN_GAP_S", "QUIET_S", "TURN_S"):
        monkeypatch.setattr(f"p2pdist.swarm.reader.{name}", 0.02)
    monkeypatch.setattr("p2pdist.swarm.reader.OUTSIDE_AGAIN_S", 0.05)


async def read(reader: SwarmReader, start: int = 0, stop: int | None = None) -> bytes:
    got = bytearray()
    try:
        async with asyncio.timeout(20):
            async for item in reader.read(start, reader.size_bytes if stop is None else stop):
                if isinstance(item, FileSpan):
                    with open(f"/proc/self/fd/{item.fileno}", "rb") as file:  # noqa: ASYNC230
                        file.seek(item.offset)
                        got += file.read(item.length)
                else:
                    got += item
    finally:
        reader.close()
    return bytes(got)


async def test_a_body_goes_on_outside_behind_the_chunks_that_are_here(tmp_path: Path) -> None:
    outside = Outside(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 1)
        assert await read(reader_of(motion, outside)) == DATA

    assert outside.starts == [TRUE.geometry.offset(2)]


@pytest.mark.parametrize("sticky", [False, True])
async def test_a_proxy_that_says_no_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sticky: bool
) -> None:
    """Nobody else can have begun: the proxy's no is the first word of the blob."""
    monkeypatch.setattr("p2pdist.swarm.reader.FIRST_WAIT_S", 600.0)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        proxy = link("a", role=Role.PROXY)
        motion.node.proxies.add(proxy.session.member.host_id)
        motion.active.hear(real(proxy), Retract(TRUE.digest))
        assert await read(reader_of(motion, Outside(DATA), sticky=sticky)) == DATA


async def test_bytes_of_a_proxy_count_whichever_way_they_came(tmp_path: Path) -> None:
    """Chunks by exchange, and the rest as a body."""
    outside, context = Outside(DATA), PullContext("test")
    outside.label = "proxy"
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        reader = reader_of(motion, outside, context=context)
        motion.active.received["proxy"] = 100
        assert await read(reader) == DATA

    assert context.bytes_by_source == {"proxy": len(DATA) + 100}


async def whole(directory: Path, motion: Motion) -> Path:
    """All of it lies here, and is not open; return the file."""
    await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
    await motion.land(TRUE, *range(TRUE.geometry.chunk_count))
    blob = motion.active.blob
    assert isinstance(blob, Blob)
    await until(lambda: blob.synced)
    await until(lambda: not open_after_letting_go(motion))  # the sync may still have it
    return blob.path / "data"


def open_after_letting_go(motion: Motion) -> int:
    files = motion.node.store._disk.files
    files.let_go()
    return files.open_count


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_blob_that_cannot_be_opened_comes_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, real_open = Outside(DATA), os.open

    def no_descriptors(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_ACCMODE == os.O_RDWR:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return real_open(path, flags, mode)

    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await whole(tmp_path, motion)
        with monkeypatch.context() as patched:
            patched.setattr(os, "open", no_descriptors)
            assert await read(reader_of(motion, outside)) == DATA
        error = motion.active.store_error
        assert error is not None
        assert error.no_descriptors
        assert await read(reader_of(motion, Outside(None))) == DATA  # again from here

    assert outside.starts == [0]


async def test_a_blob_that_was_taken_away_from_below_comes_from_outside_and_is_forgotten(
    tmp_path: Path,
) -> None:
    outside = Outside(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        data = await whole(tmp_path, motion)
        data.unlink()
        assert await read(reader_of(motion, outside)) == DATA
        await until(lambda: motion.node.store.get(TRUE.digest) is None)

    assert outside.starts == [0]


async def test_a_reader_that_ends_leaves_nothing_open(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await whole(tmp_path, motion)
        assert await read(reader_of(motion, Outside(None))) == DATA
        assert motion.node.store._disk.files.open_count == 1
        assert open_after_letting_go(motion) == 0


async def test_a_signed_size_is_what_a_new_reader_tells_its_client(tmp_path: Path) -> None:
    outside = Outside(None)
    async with in_motion(tmp_path, TRUE.digest, 10 * len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, *range(LAST + 1))
        reader = reader_of(motion, outside, size_bytes=10 * len(DATA))

        assert reader.size_bytes == len(DATA)
        assert await read(reader) == DATA


async def test_who_was_told_another_size_before_is_not_given_this_blob(tmp_path: Path) -> None:
    """Its client was promised another length: outside there may be such a blob, else it is 404."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA) + 9) as motion:
        reader = reader_of(motion, Outside(None), size_bytes=len(DATA) + 9)
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, *range(LAST + 1))

        with pytest.raises(RegistryError):
            await read(reader)


async def test_an_open_map_of_a_liar_leaves_the_true_blob_outside(tmp_path: Path) -> None:
    wrong = SignedMap(some_bytes(7, seed=2), b"w", digest=TRUE.digest)
    outside = Outside(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        reader = reader_of(motion, outside)
        await motion.hear(wrong.head, *wrong.batches)
        await motion.land(wrong, 0, 1)

        assert await read(reader) == DATA
    assert outside.starts == [0]


# --- sources that were away ---------------------------------------------------------------------


async def test_who_fetches_for_all_goes_ahead_when_an_outage_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every reader of every host gets through in the same second."""
    monkeypatch.setattr("p2pdist.swarm.reader.OUTAGE_S", 0.0)
    monkeypatch.setattr("p2pdist.swarm.reader.GIVE_WAY_S", 0.05)
    outside = Outside(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)

        async def back() -> None:
            if len(outside.starts) == 1:
                await motion.land(TRUE, 0, 1)

        outside.back = back
        assert await read(reader_of(motion, outside)) == DATA

    assert outside.starts == [0, TRUE.geometry.offset(2)]


async def test_a_client_that_cannot_go_elsewhere_waits_for_a_source_to_come_back(
    tmp_path: Path,
) -> None:
    outside = Outside(None)

    async def back() -> None:
        if len(outside.starts) == 2:
            outside.data = DATA

    outside.back = back
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        assert await read(reader_of(motion, outside, sticky=True)) == DATA


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (UpstreamError("none there", status=404), ErrorReason.UNKNOWN),
        (UpstreamError("not for us", status=403), ErrorReason.DENIED),
        (BadAnswer("not even HTTP"), ErrorReason.REGISTRY_ERROR),
    ],
)
async def test_nobody_waits_for_what_all_refuse_for_good(
    tmp_path: Path, error: UpstreamError, reason: ErrorReason
) -> None:
    outside = Outside(None)
    outside.error = error
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        with pytest.raises(RegistryError) as caught:
            await read(reader_of(motion, outside, sticky=True))

    assert (caught.value.status, caught.value.reason) == (404, reason)
    assert len(outside.starts) == 1


async def test_one_that_is_away_may_have_what_another_refuses(tmp_path: Path) -> None:
    refusing, away = Outside(None), Outside(None)
    refusing.error = UpstreamError("none there", status=404)

    async def back() -> None:
        if len(away.starts) == 2:
            away.data = DATA

    away.back = back
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        assert await read(reader_of(motion, refusing, away, sticky=True)) == DATA


async def test_a_body_ends_at_once_when_all_refuse_the_rest_for_good(tmp_path: Path) -> None:
    outside = Outside(None)
    outside.error = BadAnswer("another part than was asked for")
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 1)
        with pytest.raises(BlobFailed):
            await read(reader_of(motion, outside))

    assert len(outside.starts) == 1


async def test_a_client_that_can_go_elsewhere_is_told_to(tmp_path: Path) -> None:
    outside = Outside(None)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        with pytest.raises(RegistryError) as caught:
            await read(reader_of(motion, outside))

    assert caught.value.status == 404
    assert len(outside.starts) == 1


# --- chunks of an open map that were wrong ------------------------------------------------------


async def test_chunks_that_did_not_go_on_to_the_digest_are_not_kept(tmp_path: Path) -> None:
    """A map that was revoked long ago, replayed to who did not hear of it: every pull would begin
    with its chunks and fail."""
    wrong = SignedMap(some_bytes(4.5, seed=3), b"w", digest=TRUE.digest)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(wrong.head, *wrong.batches)
        await motion.land(wrong, 0, 1)
        with pytest.raises(BlobFailed):
            await read(reader_of(motion, Outside(DATA)))
        await gone(motion)

        assert motion.active.failure is not None
        assert motion.node.tracker.notes[-1] == (0, False)


async def test_chunks_of_a_sealed_map_stay_when_the_rest_from_outside_is_wrong(
    tmp_path: Path,
) -> None:
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, 0, 1)
        with pytest.raises(BlobFailed):
            await read(reader_of(motion, Outside(wrong)))

        assert motion.active.failure is None
        assert motion.node.store.get(TRUE.digest) is not None


async def test_a_wrong_body_that_began_outside_says_nothing_of_our_chunks(tmp_path: Path) -> None:
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        with pytest.raises(BlobFailed):
            await read(reader_of(motion, Outside(wrong)))

        assert motion.active.failure is None


async def gone(motion: Motion) -> None:
    async with asyncio.timeout(10):
        while motion.node.store.get(TRUE.digest) is not None:  # noqa: ASYNC110  # no event
            await asyncio.sleep(0.01)


async def test_where_every_proxy_hangs_the_swarm_gets_a_moment_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FIRST_WAIT_S", "GAP_S", "QUIET_S", "PROGRESS_WAIT_S"):
        monkeypatch.setattr(f"p2pdist.swarm.reader.{name}", 3600.0)
    monkeypatch.setattr("p2pdist.swarm.reader.FORSAKEN_FIRST_S", 0.02)
    outside = Outside(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        assert await read(reader_of(motion, outside, forsaken=True)) == DATA


async def test_a_silent_source_is_not_waited_for_while_there_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.reader.FIRST_BYTE_S", 0.0)
    monkeypatch.setattr("p2pdist.swarm.reader.HURRY_S", 0.02)
    silent, other = Outside(DATA), Outside(DATA)
    silent.back = _never
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 1)
        assert await read(reader_of(motion, silent, other)) == DATA

    assert len(other.starts) == 1


async def _never() -> None:
    await asyncio.Event().wait()


async def test_a_reader_of_a_part_says_where_it_ends_and_one_of_all_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[int, int | None]] = []
    reader_at = Wanting.reader_at

    def spied(
        wanting: Wanting, reader: int, offset: int, now_s: float, *, until: int | None = None
    ) -> None:
        said.append((offset, until))
        reader_at(wanting, reader, offset, now_s, until=until)

    monkeypatch.setattr(Wanting, "reader_at", spied)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, *range(TRUE.geometry.chunk_count))
        demand = PullContext("test", demand=True)
        assert await read(reader_of(motion, context=demand), 5, 9) == DATA[5:9]
        assert await read(reader_of(motion, context=demand)) == DATA
        assert await read(reader_of(motion), 5, 9) == DATA[5:9]

    whole = len(DATA)
    of_a_part, of_all = [(0, 0), (5, 9), (9, 9)], [(0, 0), (0, None), (whole, None)]
    assert said == [*of_a_part, *of_all, (0, None), (5, None), (9, None)]


async def test_the_core_hears_how_far_a_reader_came_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is fetched next is what it waits for, and not what went past the swarm."""
    outside = Outside(DATA)
    chunk_bytes = TRUE.geometry.chunk_size_bytes
    places: list[int] = []

    async def chunks(_: Body) -> AsyncIterator[bytes]:
        yield DATA[: 2 * chunk_bytes + HOLD_BACK_BYTES]
        outside.data = None
        raise UpstreamError("the body broke off")

    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)

        async def back() -> None:
            if len(outside.starts) == 2:  # it was left alone for a while, and is away
                place = motion.active.core.wanting.readers.places()[0]
                places.append(place.chunk)
                await motion.land(TRUE, *range(2, TRUE.geometry.chunk_count))

        outside.back = back
        monkeypatch.setattr(Body, "chunks", chunks)
        assert await read(reader_of(motion, outside, sticky=True)) == DATA

    assert places == [2]


async def test_the_swarm_is_sought_for_a_part_that_lacks_and_only_then(tmp_path: Path) -> None:
    sought: list[str] = []
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches, TRUE.seal)
        await motion.land(TRUE, 0)
        for start in (0, TRUE.geometry.offset(1)):
            outside = Outside(DATA)
            reader = SwarmReader(
                motion.active,
                NAME,
                PullContext("test", demand=True),
                (outside,),
                size_bytes=len(DATA),
                used_fallback=lambda *_: None,
                demand_lacks=lambda: sought.append("lacks"),
            )
            assert await read(reader, start, start + 9) == DATA[start : start + 9]
            assert len(sought) == (start > 0)
