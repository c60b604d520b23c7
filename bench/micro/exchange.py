"""Chunks over one link, checked and stored, against the least that the same work can cost.

The floor is one thread that sends a file with `os.sendfile` and one that receives into a reused
buffer, hashes each chunk with BLAKE3 and writes it: no protocol, no event loop. Both move the same
file over loopback in this process; CPU is user and system time of the whole process.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import statistics
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from random import Random

from blake3 import blake3

from p2pdist.errors import StoreError
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.securing import LinkIdentity
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.chunkmap import ChunkMap, chunk_hash
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.geometry import geometry_for
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import HashBatch, Keyring, MapHead, Signer
from p2pdist.process.ca import CA_NAME, CERT_NAME, KEY_NAME, issue, new_ca
from p2pdist.process.clock import unix_s
from p2pdist.process.files import write_whole
from p2pdist.process.host_identity import read_identity
from p2pdist.process.tasks import TaskOwner
from p2pdist.store.blob import Blob
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from p2pdist.swarm.assembly import link_identity
from p2pdist.swarm.intake import Arrival, ChunkIntake

CHUNK_BYTES = 256 * 1024
RUN_CHUNKS = 4
OUTSTANDING = 2
RUNS = 3
DIGEST = Digest("sha256:" + "0" * 64)
MAP_ID = MapId(bytes(16))


@dataclass(frozen=True, slots=True)
class Cost:
    cpu_s_per_gb: float
    gb_per_s: float


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class _Sender:
    def __init__(self, fileno: int) -> None:
        self._fileno = fileno

    def link_up(self, link: Link) -> None: ...

    def link_down(self, link: Link, reason: str) -> None: ...

    def frame(self, link: Link, frame: fr.Frame) -> None:
        if isinstance(frame, fr.Request):
            chunks = range(frame.first, frame.first + frame.count)
            spans = [(i, i * CHUNK_BYTES, CHUNK_BYTES) for i in chunks]
            link.send_run(frame.request_id, self._fileno, spans, lambda _: None)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None: ...

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None: ...


class _Receiver(_Sender):
    """Asks for runs, two outstanding; chunks are checked and stored as a peer does it."""

    def __init__(self, blob: Blob, tasks: TaskOwner) -> None:
        super().__init__(-1)
        self.done = asyncio.Event()
        self._left = blob.geometry.chunk_count
        self._next = iter(range(0, self._left, RUN_CHUNKS))
        self._intake = ChunkIntake(tasks, self._checked, self._failed)
        self._intake.store_in(blob)

    def start(self, link: Link) -> None:
        for _ in range(OUTSTANDING):
            self._ask(link)

    def _ask(self, link: Link) -> None:
        first = next(self._next, None)
        if first is not None:
            _ask_run(link, first)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        self._intake.take(Arrival(link, RequestId(request_id), chunk, data))

    def _checked(self, arrival: Arrival, good: bool, fresh: bool) -> None:
        assert good
        if (arrival.chunk + 1) % RUN_CHUNKS == 0:
            self._ask(arrival.link)
        self._left -= 1
        if not self._left:
            self.done.set()

    def _failed(self, error: StoreError) -> None:
        raise error


class _Taker(_Sender):
    """Asks for runs, two outstanding, and lets go of what comes: the link and nothing else."""

    def __init__(self, chunks: int) -> None:
        super().__init__(-1)
        self.done = asyncio.Event()
        self._left = chunks
        self._next = iter(range(0, chunks, RUN_CHUNKS))

    def start(self, link: Link) -> None:
        for _ in range(OUTSTANDING):
            self._ask(link)

    def _ask(self, link: Link) -> None:
        first = next(self._next, None)
        if first is not None:
            _ask_run(link, first)

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        link.give_back(data)
        self._left -= 1
        if (chunk + 1) % RUN_CHUNKS == 0:
            self._ask(link)
        if not self._left:
            self.done.set()


def _ask_run(link: Link, first: int) -> None:
    request_id = RequestId(first + 1)
    link.expect_chunks(request_id, [(i, CHUNK_BYTES) for i in range(first, first + RUN_CHUNKS)])
    link.send(fr.Request(request_id, DIGEST, MAP_ID, first, RUN_CHUNKS))


async def _linked(
    ends: tuple[_Sender, _Taker | _Receiver], identities: Mapping[str, LinkIdentity]
) -> tuple[list[ExchangeTransport], Link]:
    """Both ends over loopback, and the link of the second one."""

    def end(handler: _Sender, name: str) -> ExchangeTransport:
        member = Member(HostId(name * 32), Role.PEER, Place("dc1"))
        return ExchangeTransport(
            handler, secret=lambda: ClusterSecrets((b"s" * 32,)), me=lambda: member,
            limits=ExchangeLimits(),
            identity=lambda: identities.get(name),
        )  # fmt: skip

    transports = [end(ends[0], "a"), end(ends[1], "b")]
    address = await transports[0].listen("127.0.0.1", 0)
    return transports, await transports[1].dial(address, timeout_s=5)


async def _link_alone(source: int, chunks: int, identities: Mapping[str, LinkIdentity]) -> Cost:
    taker = _Taker(chunks)
    transports, link = await _linked((_Sender(source), taker), identities)
    stop = _clock(chunks * CHUNK_BYTES)
    taker.start(link)
    await taker.done.wait()
    cost = stop()
    for transport in transports:
        await transport.close()
    return cost


async def _over_a_link(
    source: int,
    directory: Path,
    chunk_map: ChunkMap,
    keyring: Keyring,
    identities: Mapping[str, LinkIdentity],
) -> Cost:
    limits = StoreLimits(max_bytes=1 << 40, reserve_free_bytes=0)
    store = await Store.open(directory, limits=limits, keyring=keyring, boot_id="bench")
    blob, tasks = await store.create(chunk_map), TaskOwner("bench")
    receiver = _Receiver(blob, tasks)
    ends, link = await _linked((_Sender(source), receiver), identities)
    stop = _clock(chunk_map.geometry.size_bytes)
    receiver.start(link)
    await receiver.done.wait()
    cost = stop()
    for transport in ends:
        await transport.close()
    await tasks.close()
    await store.remove(chunk_map.digest)
    await store.close()
    return cost


def _floor(source: int, path: Path, chunk_count: int) -> Cost:
    target = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(target, 0, chunk_count * CHUNK_BYTES)
    listener = socket.create_server(("127.0.0.1", 0))
    left = socket.create_connection(listener.getsockname())
    right, _ = listener.accept()
    listener.close()

    def send() -> None:
        offset, size = 0, chunk_count * CHUNK_BYTES
        while offset < size:
            offset += os.sendfile(left.fileno(), source, offset, size - offset)

    stop = _clock(chunk_count * CHUNK_BYTES)
    thread = threading.Thread(target=send)
    thread.start()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for chunk in range(chunk_count):
        right.recv_into(buffer, CHUNK_BYTES, socket.MSG_WAITALL)
        blake3(buffer).digest()
        os.pwrite(target, buffer, chunk * CHUNK_BYTES)
    thread.join()
    cost = stop()
    left.close()
    right.close()
    os.close(target)
    path.unlink()
    return cost


def _clock(nbytes: int) -> Callable[[], Cost]:
    """Start the clocks; calling the result says what `nbytes` cost since."""
    cpu_s, wall_s = _cpu_s(), os.times().elapsed

    def stop() -> Cost:
        wall = max(os.times().elapsed - wall_s, 0.01)
        return Cost((_cpu_s() - cpu_s) / nbytes * 1e9, nbytes / 1e9 / wall)

    return stop


def _source(path: Path, count: int) -> tuple[int, ChunkMap, Keyring]:
    """A file that does not shrink, and its signed chunk map."""
    rng, signer = Random(1), Signer.generate()
    geometry = geometry_for(count * CHUNK_BYTES)
    assert geometry.chunk_size_bytes == CHUNK_BYTES
    head = MapHead(DIGEST, MAP_ID, geometry.size_bytes, CHUNK_BYTES, int(unix_s()))
    chunk_map = ChunkMap(head, signer.sign(head))
    fileno = os.open(path, os.O_RDWR | os.O_CREAT)
    for chunk in range(count):
        data = rng.randbytes(CHUNK_BYTES)
        os.pwrite(fileno, data, chunk * CHUNK_BYTES)
        batch = HashBatch(MAP_ID, chunk, chunk_hash(data))
        chunk_map.apply(batch, signer.sign(batch))
    return fileno, chunk_map, Keyring([signer.public_key_bytes])


def _identities(directory: Path) -> dict[str, LinkIdentity]:
    """Certificates for both ends."""
    ca, shown = new_ca(unix_s()), {}
    for name in "ab":
        who = Identity(IdentityRole.PEER, HostId(name * 32))
        issued, path = issue(ca, who, days=1, now_s=unix_s()), directory / name
        path.mkdir()
        write_whole(path / CA_NAME, ca.pem, mode=0o644)
        write_whole(path / KEY_NAME, issued.key)
        write_whole(path / CERT_NAME, issued.certificate, mode=0o644)
        own = link_identity(read_identity(path, Role.PEER))
        assert own is not None
        shown[name] = own
    return shown


@dataclass(frozen=True, slots=True)
class Costs:
    """Medians of interleaved runs; `link_`: chunks are let go of, neither hashed nor stored."""

    exchange: Cost
    sealed: Cost
    link_clear: Cost
    link_sealed: Cost
    floor: Cost


def measure(size_mib: int = 512) -> Costs:
    count = size_mib * (1 << 20) // CHUNK_BYTES
    runs: dict[str, list[Cost]] = {field.name: [] for field in fields(Costs)}
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        source, chunk_map, keyring = _source(directory / "source", count)
        shown = _identities(directory)
        for number in range(RUNS + 1):
            store = directory / f"store{number}"
            for kind, identities in (("exchange", {}), ("sealed", shown)):
                whole = _over_a_link(source, store, chunk_map, keyring, identities)
                runs[kind].append(asyncio.run(whole))
            for kind, identities in (("link_clear", {}), ("link_sealed", shown)):
                runs[kind].append(asyncio.run(_link_alone(source, count, identities)))
            runs["floor"].append(_floor(source, directory / "target", count))
        os.close(source)
    return Costs(**{kind: _median(costs[1:]) for kind, costs in runs.items()})


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(c.cpu_s_per_gb for c in costs),
        statistics.median(c.gb_per_s for c in costs),
    )
