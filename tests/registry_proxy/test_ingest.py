"""One body from upstream into a blob in motion: what is read of it, and when it is sealed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import pytest

from p2pdist.errors import ErrorReason, StoreError, UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.model.statements import Revocation
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core import ingest as core
from p2pdist.registry_proxy.ingest import Ingest
from tests.swarm.active_parts import KEYRING, SIGNER, Motion, SignedMap, in_motion, some_bytes

NAME, OTHER = ImageName("docker.io", "library/app"), ImageName("ghcr.io", "app")
DATA = some_bytes(8.5)
TRUE = SignedMap(DATA, b"t")
CHUNK, COUNT = TRUE.geometry.chunk_size_bytes, TRUE.geometry.chunk_count
PIECE_BYTES = 64 * 1024

Reading = Callable[[int], Awaitable[None]]


class Body:
    def __init__(self, data: bytes, start: int, reading: Reading) -> None:
        self.size_bytes: int | None = len(data)
        self.start = start
        self.arrived_bytes = 0
        self._data = data
        self._reading = reading

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(self.start, len(self._data), PIECE_BYTES):
            await self._reading(at)
            piece = self._data[at : at + PIECE_BYTES]
            self.arrived_bytes += len(piece)
            yield piece

    def limit_buffer(self, nbytes: int) -> None: ...


async def nothing_happens(at: int) -> None: ...


class Registry:
    """Has `data` under every digest, and keeps its bodies."""

    label = "upstream"

    def __init__(
        self, data: bytes, reading: Reading = nothing_happens, *, tells_size: bool = True
    ) -> None:
        """`reading`: happens before the byte `at` is sent."""
        self.data = data
        self.bodies: list[Body] = []
        self.asked: list[ImageName] = []
        self.opened = asyncio.Event()
        self._reading = reading
        self._tells_size = tells_size

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.asked.append(name)
        self.bodies.append(Body(self.data, start, self._reading))
        if not self._tells_size:
            self.bodies[-1].size_bytes = None
        self.opened.set()
        yield self.bodies[-1]

    @property
    def read(self) -> list[tuple[int, int]]:
        """The first byte of each body, and how many were taken from there on."""
        return [(body.start, body.arrived_bytes) for body in self.bodies]


@dataclass
class Said:
    """What an ingest told its owner."""

    refuted: list[tuple[ImageName, int | None]] = field(default_factory=list)
    delivered: list[ImageName] = field(default_factory=list)
    interrupted: list[str] = field(default_factory=list)


async def ingest(motion: Motion, registry: Registry, *names: ImageName, alone: bool = True) -> Said:
    node: Any = motion.node
    said = Said()
    reading = Ingest(
        node,
        motion.active,
        SIGNER,
        registry,
        names or [NAME],
        Random(1),
        alone=alone,
        refuted=lambda name, nbytes: said.refuted.append((name, nbytes)),
        delivered=said.delivered.append,
        interrupted=lambda error: said.interrupted.append(str(error)),
    )
    async with asyncio.timeout(20):
        await reading.run()
    return said


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "RETRY_FIRST_S", 0.001)


async def test_a_body_becomes_a_sealed_blob(tmp_path: Path) -> None:
    registry = Registry(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        said = await ingest(motion, registry)

        assert motion.active.complete
        assert motion.node.revoked == []
    assert said == Said(delivered=[NAME])
    assert registry.read == [(0, len(DATA))]


async def test_what_came_another_way_is_not_read_again(tmp_path: Path) -> None:
    """Another proxy read the end of it, before it died."""
    registry = Registry(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, *range(2, COUNT))
        await ingest(motion, registry)

        assert motion.active.complete
    assert registry.read == [(0, 2 * CHUNK)]


async def test_each_gap_is_read_for_itself_unless_the_way_to_the_next_is_short(
    tmp_path: Path,
) -> None:
    """A new request costs more than a few chunks."""
    registry = Registry(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, 0, 2, 3, *range(6, COUNT))
        await ingest(motion, registry)

        assert motion.active.complete
    assert registry.read == [(CHUNK, 5 * CHUNK)]


async def test_other_bytes_than_those_of_the_digest_are_taken_back(tmp_path: Path) -> None:
    wrong = bytes([DATA[0] ^ 1]) + DATA[1:]
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await ingest(motion, Registry(wrong))

        assert not motion.active.complete
        (record,) = motion.node.revoked
        statement = KEYRING.open(record)
        assert isinstance(statement, Revocation)
        assert motion.active.map is not None
        assert statement.map_id == motion.active.map.map_id


async def test_a_body_that_breaks_off_is_gone_on_with_from_another_name(tmp_path: Path) -> None:
    broken = False

    async def breaks_once(at: int) -> None:
        nonlocal broken
        if at == 3 * CHUNK and not broken:
            broken = True
            raise UpstreamError("the line is gone", reason=ErrorReason.REGISTRY_DOWN)

    registry = Registry(DATA, breaks_once)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        said = await ingest(motion, registry, NAME, OTHER)

        assert motion.active.complete
    assert registry.asked == [NAME, OTHER]
    assert registry.read == [(0, 3 * CHUNK), (3 * CHUNK, len(DATA) - 3 * CHUNK)]
    assert said == Said(interrupted=["the line is gone"])


async def test_a_registry_that_gives_out_fails_the_blob(tmp_path: Path) -> None:
    async def refuses(at: int) -> None:
        raise UpstreamError("not there", reason=ErrorReason.UNKNOWN)

    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await ingest(motion, Registry(DATA, refuses))

        assert motion.active.failure == "upstream gave out: not there"
        assert motion.active.refusal is ErrorReason.UNKNOWN


async def test_a_body_of_another_size_refutes_its_name_only(tmp_path: Path) -> None:
    """And where no name is left, the map that was opened for its claim is taken back."""
    longer = DATA + b"more"
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        said = await ingest(motion, Registry(longer), NAME, OTHER)

        assert said.refuted == [(NAME, len(longer)), (OTHER, len(longer))]
        assert motion.active.failure is not None
        assert motion.node.revoked == []


async def test_a_body_that_is_too_long_has_its_map_taken_back(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        said = await ingest(motion, Registry(DATA + b"more", tells_size=False))

        assert said.refuted == [(NAME, None)]
        assert len(motion.node.revoked) == 1
        assert not motion.active.complete


async def test_who_has_no_lease_gives_way_to_another_reader(tmp_path: Path) -> None:
    """Its body was opened in the same second, and nothing of it is read."""
    registry = Registry(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)

        async def another_reads() -> None:
            await registry.opened.wait()
            for chunk in range(COUNT):
                await motion.land(TRUE, chunk)
                await asyncio.sleep(0)
            await motion.hear(TRUE.seal)

        motion.node.tasks.start(another_reads(), name="another reader")
        await ingest(motion, registry, alone=False)

        assert motion.active.complete
    assert registry.read == [(0, 0)]


async def test_a_blob_that_fails_meanwhile_is_not_read_to_its_end(tmp_path: Path) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:

        async def fails(at: int) -> None:
            if at == 2 * CHUNK:
                motion.active.fail("its map was revoked")

        registry = Registry(DATA, fails)
        await ingest(motion, registry)

        assert motion.active.failure == "its map was revoked"
    ((_, read_bytes),) = registry.read
    assert read_bytes == 3 * CHUNK


async def test_a_chunk_that_rots_meanwhile_comes_again(tmp_path: Path) -> None:
    """Its bytes are not hashed twice, or a good map would be taken back."""
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await motion.hear(TRUE.head, *TRUE.batches)
        await motion.land(TRUE, *range(4, COUNT))

        async def rots(at: int) -> None:
            if at == 3 * CHUNK:
                motion.active.lost([1])
                assert motion.active.blob is not None
                motion.active.blob.verified.discard(1)

        registry = Registry(DATA, rots)
        await ingest(motion, registry)

        assert motion.active.complete
        assert motion.node.revoked == []
    assert [start for start, _ in registry.read] == [0, CHUNK]


async def test_a_store_that_fails_ends_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:

        async def full(*_: object) -> None:
            raise StoreError("no room", full=True)

        monkeypatch.setattr(motion.node.store, "create", full)
        await ingest(motion, Registry(DATA))

        assert motion.active.store_full
        assert motion.active.failure is None
