"""One blob in motion on a real store, and what its node hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any, cast

from p2pdist.exchange.codec import Decoder
from p2pdist.exchange.frames import Frame
from p2pdist.exchange.link import Link
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.geometry import Geometry, geometry_for
from p2pdist.model.ids import Digest, HostId, MapId, RequestId, digest_of
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import HashBatch, Keyring, MapHead, Revocation, Seal, Signer
from p2pdist.process.tasks import TaskOwner
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.host import HostCore, SwarmFrame
from p2pdist.swarm.core.host_orders import LocalOrder
from p2pdist.swarm.counters import NodeCounters
from p2pdist.swarm.host_driver import HostDriver
from p2pdist.swarm.link_table import LinkTable
from tests.fakes.pulling import random_bytes

SIGNER = Signer.generate()
KEYRING = Keyring([SIGNER.public_key_bytes])
NOW_S = 1_700_000_000


@dataclass
class Told:
    """What a tracker would hear."""

    notes: list[tuple[int, bool]] = field(default_factory=list)

    def note(self, key: object, held: int, complete: bool) -> None:
        self.notes.append((held, complete))

    def join(self, key: object, **_: object) -> None: ...

    def leave(self, key: object) -> None: ...

    def revoke(self, records: list[bytes]) -> None: ...


class FakeNode:
    """Implements `NodePorts`."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.tracker: Any = Told()
        self.counters = NodeCounters()
        self.tasks = TaskOwner("test")
        self.place = Place("dc1")
        self.is_proxy = False
        self.links = LinkTable()
        self.proxies: set[HostId] = set()
        """Those of its settings."""
        self.core = HostCore(
            self.place,
            is_proxy=False,
            rng=Random(1),
            proxy_of_ours=self.proxies.__contains__,
            revoked=store.revoked,
            servable=lambda digest: True,
        )
        self.active: ActiveBlob | None = None
        self.driver = HostDriver(
            self.core,
            self.links,
            tracker=lambda: self.tracker,
            count_fault=lambda host, fault: self.punished.append(str(fault)),
            provide=lambda digest, bulk: self.wanted.append(digest),
            meet=lambda digest, members: None,
            local=self._carry_out_locally,
        )
        self.carry_out = self.driver.carry_out
        self.punished: list[str] = []
        self.wanted: list[Digest] = []
        self.revoked: list[bytes] = []

    def _carry_out_locally(self, order: LocalOrder) -> None:
        if self.active is not None:
            self.active.carry_out(order)

    async def revoke(self, record: bytes) -> None:
        self.revoked.append(record)


class FakeLink:
    """To a peer of the same datacenter, which says nothing by itself."""

    def __init__(self) -> None:
        member = Member(HostId("a" * 32), Role.PEER, Place("dc1"))
        self.session = SimpleNamespace(member=member, features=0)
        self.closed = self.sealed = False
        self.payload_received = 0
        self.sent: list[Frame] = []
        self.forgotten: list[RequestId] = []

    @property
    def real(self) -> Link:
        return cast("Link", self)

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def send_encoded(self, data: bytes) -> None:
        self.sent += Decoder().feed(data)

    def expect_chunks(self, request_id: RequestId, chunks: object) -> None: ...

    def forget(self, request_id: RequestId) -> None:
        self.forgotten.append(request_id)


class SignedMap:
    """A map of some bytes, statement by statement."""

    def __init__(self, data: bytes, map_id: bytes, *, digest: Digest | None = None) -> None:
        self.data = data
        self.digest = digest_of(data) if digest is None else digest
        self.geometry: Geometry = geometry_for(len(data))
        size = self.geometry.chunk_size_bytes
        self.head = MapHead(self.digest, MapId(map_id * 16), len(data), size, NOW_S)
        self.whole = ChunkMap(self.head, SIGNER.sign(self.head))
        self.batches = []
        for chunk in self.geometry.indexes():
            batch = HashBatch(self.head.map_id, chunk, chunk_hash(self.chunk(chunk)))
            self.whole.apply(batch, SIGNER.sign(batch))
            self.batches.append(batch)
        count, root = self.geometry.chunk_count, self.whole.root()
        self.seal = Seal(self.digest, self.head.map_id, count, root)
        self.revocation = Revocation(self.digest, self.head.map_id, NOW_S)

    def chunk(self, index: int) -> bytes:
        start = self.geometry.offset(index)
        return self.data[start : start + self.geometry.length(index)]


@dataclass
class Motion:
    """One `ActiveBlob` and its node."""

    node: FakeNode
    active: ActiveBlob

    async def hear(self, *statements: MapHead | HashBatch | Seal | Revocation) -> None:
        for statement in statements:
            self.active.hear(None, statement, SIGNER.sign(statement))
        await self.active.settle()

    def told(self, link: Link, frame: SwarmFrame) -> None:
        """A neighbour says this."""
        now_s = asyncio.get_running_loop().time()
        self.node.core.hear(self.node.links.state(link), frame, now_s)
        self.node.carry_out()

    def tick(self) -> None:
        """What the blob does by itself is due."""
        self.active.core.handle_deadline(asyncio.get_running_loop().time())
        self.node.core.validate()
        self.node.carry_out()

    async def land(self, signed: SignedMap, *chunks: int) -> None:
        """Chunks come in, checked."""
        assert self.active.blob is not None
        for chunk in chunks:
            data = signed.chunk(chunk)
            assert await self.active.blob.admit(chunk, bytearray(data), chunk_hash(data))
            self.active.landed(1 << chunk)


@asynccontextmanager
async def in_motion(directory: Path, digest: Digest, size_bytes: int) -> AsyncIterator[Motion]:
    limits = StoreLimits(1 << 30, reserve_free_bytes=0)
    store = await Store.open(directory / "store", limits=limits, keyring=KEYRING, boot_id="boot")
    node = FakeNode(store)
    active = node.active = ActiveBlob(node, digest, size_bytes)
    try:
        yield Motion(node, active)
    finally:
        if node.core.blobs:  # else the test ended it
            active.end()
        node.driver.end()
        await node.tasks.close()
        await store.close()


def some_bytes(chunks: float, seed: int = 1) -> bytes:
    return random_bytes(int(chunks * 256 * 1024), seed)
