"""One body from upstream into a blob in motion: what is read of it, and when it is sealed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

from p2pdist.model.ids import Digest
from p2pdist.model.statements import Revocation
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.ingest import Ingest
from tests.swarm.active_parts import KEYRING, SIGNER, Motion, SignedMap, in_motion, some_bytes

NAME = ImageName("docker.io", "library/app")
DATA = some_bytes(8.5)
TRUE = SignedMap(DATA, b"t")
CHUNK, COUNT = TRUE.geometry.chunk_size_bytes, TRUE.geometry.chunk_count
PIECE_BYTES = 64 * 1024


class Body:
    def __init__(self, data: bytes, start: int) -> None:
        self.size_bytes, self.start = len(data), start
        self.arrived_bytes = 0
        self._data = data

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(self.start, len(self._data), PIECE_BYTES):
            piece = self._data[at : at + PIECE_BYTES]
            self.arrived_bytes += len(piece)
            yield piece

    def limit_buffer(self, nbytes: int) -> None: ...


class Registry:
    """Has `data` under every digest, and keeps its bodies."""

    label = "upstream"

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.bodies: list[Body] = []

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[Body]:
        self.bodies.append(Body(self.data, start))
        yield self.bodies[-1]

    @property
    def read(self) -> list[tuple[int, int]]:
        """The first byte of each body, and how many were taken from there on."""
        return [(body.start, body.arrived_bytes) for body in self.bodies]


async def ingest(motion: Motion, registry: Registry) -> None:
    node: Any = motion.node
    reading = Ingest(
        node,
        motion.active,
        SIGNER,
        registry,
        [NAME],
        Random(1),
        alone=True,
        refuted=lambda *_: None,
    )
    await reading.run()


async def test_a_body_becomes_a_sealed_blob(tmp_path: Path) -> None:
    registry = Registry(DATA)
    async with in_motion(tmp_path, TRUE.digest, len(DATA)) as motion:
        await ingest(motion, registry)

        assert motion.active.complete
        assert motion.node.revoked == []
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
