"""What a node sends to whom: verified, vouched for, and allowed."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from p2pdist.exchange.frames import Refuse, RefuseReason, Request, StatementIs
from p2pdist.exchange.link import Link
from p2pdist.model.chunkmap import chunk_hash
from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import Digest, MapId, RequestId, digest_of, tag_key
from p2pdist.model.statements import TagStatement
from p2pdist.store.ports import StoreLimits
from p2pdist.swarm.counters import NodeCounters
from p2pdist.swarm.server import Server, whole_chunks
from p2pdist.swarm.smalls import SmallAnswer
from tests.fakes.memory_store import MemoryStore
from tests.swarm.active_parts import (
    KEYRING,
    NOW_S,
    SIGNER,
    Motion,
    SignedMap,
    in_motion,
    some_bytes,
)
from tests.swarm.links import PLACE, FakeLink, link, real

# Five chunks of 100 bytes, the last one of 40.
GEOMETRY = Geometry(440, 100)


def run(first: int, count: int) -> Request:
    return Request(RequestId(1), digest_of(b"layer"), MapId(b"m" * 16), first, count)


@pytest.mark.parametrize(
    ("nbytes", "sent"), [(0, 0), (99, 0), (100, 0b00100), (239, 0b01100), (240, 0b11100)]
)
def test_a_chunk_counts_as_sent_once_its_last_byte_is(nbytes: int, sent: int) -> None:
    assert whole_chunks(run(2, 3), GEOMETRY, nbytes) == sent


# --- what goes out ------------------------------------------------------------------------------

DATA = some_bytes(4.5)
TRUE = SignedMap(DATA, b"t")
REQUEST_ID = RequestId(7)


def everything(digest: Digest) -> bool:
    return True


def nothing(digest: Digest) -> bool:
    return False


def server_of(motion: Motion, servable: Callable[[Digest], bool] = everything) -> Server:
    return Server(motion.node.store, KEYRING, NodeCounters(), PLACE, servable)


def asked(first: int, count: int, signed: SignedMap = TRUE) -> Request:
    return Request(REQUEST_ID, TRUE.digest, signed.head.map_id, first, count)


@asynccontextmanager
async def holding(directory: Path) -> AsyncIterator[Motion]:
    """Chunks 0, 1 and 3 lie here."""
    async with in_motion(directory, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 1, 3)
        yield motion


REFUSED = [Refuse(REQUEST_ID, RefuseReason.UNKNOWN)]


@pytest.mark.parametrize(
    ("first", "count", "goes_out"),
    [(0, 2, True), (3, 1, True), (2, 1, False), (1, 2, False), (4, 1, False), (4, 9, False)],
)
async def test_only_verified_chunks_go_out(
    tmp_path: Path, first: int, count: int, goes_out: bool
) -> None:
    neighbour = link("a")
    async with holding(tmp_path) as motion:
        server_of(motion).serve_run(real(neighbour), asked(first, count), None)

    assert neighbour.runs == ([REQUEST_ID] if goes_out else [])
    assert neighbour.sent == ([] if goes_out else REFUSED)


async def test_chunks_go_out_only_to_who_asks_under_their_map(tmp_path: Path) -> None:
    """Whoever follows another map would take right bytes for wrong ones, and ban us."""
    neighbour, other = link("a"), SignedMap(DATA, b"o")
    async with holding(tmp_path) as motion:
        server_of(motion).serve_run(real(neighbour), asked(0, 1, other), None)

    assert (neighbour.runs, neighbour.sent) == ([], REFUSED)


class Elsewhere:
    """Implements `Runs`: chunk 0 is to be had from peers."""

    def __init__(self) -> None:
        self.begun = 0

    def refers(self, link: Link, bits: int) -> bool:
        return bits == 0b1

    def asked(self, link: Link, bits: int) -> None:
        self.begun |= bits

    def sent(self, link: Link, bits: int, unsent: int) -> None: ...


async def test_who_is_referred_to_peers_hears_that_we_are_busy(tmp_path: Path) -> None:
    neighbour, runs = link("a"), Elsewhere()
    async with holding(tmp_path) as motion:
        server_of(motion).serve_run(real(neighbour), asked(0, 1), runs)
        assert neighbour.take() == [Refuse(REQUEST_ID, RefuseReason.BUSY)]

        server_of(motion).serve_run(real(neighbour), asked(1, 1), runs)

    assert (neighbour.runs, neighbour.sent) == ([REQUEST_ID], [])
    assert runs.begun == 0b10


async def test_chunks_that_cannot_be_opened_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    neighbour = link("a")
    async with holding(tmp_path) as motion:
        blob, files = motion.node.store.get(TRUE.digest), motion.node.store._disk.files
        assert blob is not None
        await blob.sync()
        for file in blob._all_files:
            files.close(file)

        def no_descriptors(*_: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        with monkeypatch.context() as patched:
            patched.setattr(os, "open", no_descriptors)
            server_of(motion).serve_run(real(neighbour), asked(0, 1), None)
        assert (neighbour.runs, neighbour.sent) == ([], REFUSED)
        assert not files.open_count

        server_of(motion).serve_run(real(neighbour), asked(0, 1), None)
        assert neighbour.runs == [REQUEST_ID]


async def test_nothing_of_a_revoked_map_goes_out(tmp_path: Path) -> None:
    """Not even in the moment before its bytes are gone."""
    neighbour = link("a")
    async with holding(tmp_path) as motion:
        await motion.node.store.put_revocation(TRUE.digest, TRUE.head.map_id, b"record")
        server_of(motion).serve_run(real(neighbour), asked(0, 1), None)

    assert (neighbour.runs, neighbour.sent) == ([], REFUSED)


async def test_what_may_not_be_served_any_more_goes_out_by_no_way(tmp_path: Path) -> None:
    neighbour, small = link("a"), b"config"
    key = tag_key("docker.io", "library/app", "1")
    statement = TagStatement(key, digest_of(small), "type", len(small), NOW_S, NOW_S + 60)
    async with holding(tmp_path) as motion:
        await motion.node.store.put_small(digest_of(small), small)
        await motion.node.store.put_statement(key, SIGNER.sign(statement))
        for servable in (everything, nothing):
            server = server_of(motion, servable)
            server.serve_run(real(neighbour), asked(0, 1), None)
            await server.serve_small(real(neighbour), REQUEST_ID, digest_of(small), None)
            await server.serve_statement(real(neighbour), REQUEST_ID, key)

    assert neighbour.runs == [REQUEST_ID]
    assert neighbour.smalls == [small]
    assert neighbour.sent == [StatementIs(REQUEST_ID, SIGNER.sign(statement)), *REFUSED * 3]


async def test_what_has_a_map_is_sent_to_nobody_as_a_whole(tmp_path: Path) -> None:
    """It would be read into memory, however large it is."""

    class Upstream:
        asked = 0

        def wanted(self, digest: Digest, *, bulk: bool) -> None: ...

        def brings(self, digest: Digest) -> bool:
            return False

        async def small(self, digest: Digest) -> SmallAnswer:
            self.asked += 1
            return SmallAnswer("", DATA)

    neighbour, upstream = link("a"), Upstream()
    async with holding(tmp_path) as motion:
        server = server_of(motion)
        await server.serve_small(real(neighbour), REQUEST_ID, TRUE.digest, upstream)

    assert (neighbour.smalls, neighbour.sent, upstream.asked) == ([], REFUSED, 0)


# --- out of a store without files ---------------------------------------------------------------


class SlowLink(FakeLink):
    """Takes `taken_bytes` of each chunk; notes what it is given."""

    def __init__(self, taken_bytes: int) -> None:
        super().__init__(link("a").session)
        self.taken_bytes = taken_bytes
        self.given: list[tuple[int, bytes]] = []

    def send_run(
        self,
        request_id: RequestId,
        source: int | bytes,
        spans: Sequence[tuple[int, int, int]],
        done: Callable[[int], None],
        *,
        bulk: bool,
    ) -> None:
        assert isinstance(source, bytes)
        ((chunk, offset, length),) = spans
        self.given.append((chunk, source[offset : offset + length]))
        asyncio.get_running_loop().call_soon(done, min(length, self.taken_bytes))


class Heard:
    """Implements `Runs`."""

    def __init__(self) -> None:
        self.sent_bits: list[tuple[int, int]] = []

    def refers(self, link: Link, bits: int) -> bool:
        return False

    def asked(self, link: Link, bits: int) -> None: ...

    def sent(self, link: Link, bits: int, unsent: int) -> None:
        self.sent_bits.append((bits, unsent))


@pytest.mark.parametrize(
    ("taken_bytes", "given", "sent"), [(1 << 20, [0, 1], (0b11, 0)), (1000, [0], (0, 0b11))]
)
async def test_without_files_a_chunk_is_read_once_the_one_before_has_gone_out(
    taken_bytes: int, given: list[int], sent: tuple[int, int]
) -> None:
    """And none after one of which the rest is not wanted."""
    store = MemoryStore(StoreLimits(1 << 30))
    blob = await store.create(TRUE.whole)
    for chunk in (0, 1, 3):
        assert await blob.admit(chunk, TRUE.chunk(chunk), chunk_hash(TRUE.chunk(chunk)))
    server = Server(store, KEYRING, NodeCounters(), PLACE, everything)
    neighbour, heard = SlowLink(taken_bytes), Heard()

    assert server.takes_time(asked(0, 2))
    await server.serve_read(real(neighbour), asked(0, 2), heard)
    await server.serve_read(real(neighbour), asked(1, 2), heard)

    assert neighbour.given == [(chunk, TRUE.chunk(chunk)) for chunk in given]
    assert heard.sent_bits == [sent]
    assert neighbour.sent == REFUSED
    assert not blob.holds
