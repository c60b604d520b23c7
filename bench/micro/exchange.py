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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

from blake3 import blake3

from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Address, Member, Place, Role

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

    def progress(self, link: Link, request_id: int, nbytes: int) -> None: ...

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None: ...

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None: ...


class _Receiver(_Sender):
    """Asks for runs, two outstanding; hashes and writes chunks in threads, as the store does."""

    def __init__(self, fileno: int, chunk_count: int) -> None:
        super().__init__(fileno)
        self.done = asyncio.Event()
        self._left = chunk_count
        self._next = iter(range(0, chunk_count, RUN_CHUNKS))
        self._loop = asyncio.get_running_loop()
        self._arrived = 0

    def start(self, link: Link) -> None:
        for _ in range(OUTSTANDING):
            self._ask(link)

    def _ask(self, link: Link) -> None:
        first = next(self._next, None)
        if first is not None:
            request_id = RequestId(first + 1)
            chunks = [(i, CHUNK_BYTES) for i in range(first, first + RUN_CHUNKS)]
            link.expect_chunks(request_id, chunks)
            link.send(fr.Request(request_id, DIGEST, MAP_ID, first, RUN_CHUNKS))

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        if (chunk + 1) % RUN_CHUNKS == 0:
            self._ask(link)
        future = self._loop.run_in_executor(None, self._admit, chunk, data)
        future.add_done_callback(lambda _: self._admitted())

    def _admit(self, chunk: int, data: bytearray) -> None:
        blake3(data).digest()
        os.pwrite(self._fileno, data, chunk * CHUNK_BYTES)

    def _admitted(self) -> None:
        self._left -= 1
        if not self._left:
            self.done.set()


async def _over_a_link(source: int, target: int, chunk_count: int) -> None:
    def member(name: str) -> Member:
        return Member(HostId(name * 32), Role.PEER, Place("dc1"))

    receiver = _Receiver(target, chunk_count)

    def end(handler: _Sender, name: str) -> ExchangeTransport:
        return ExchangeTransport(
            handler, secret=b"s" * 32, me=lambda: member(name), limits=ExchangeLimits()
        )

    ends = [end(_Sender(source), "a"), end(receiver, "b")]
    address = await ends[0].listen("127.0.0.1", 0)
    link = await ends[1].dial(Address(address.host, address.port), timeout_s=5)
    receiver.start(link)
    await receiver.done.wait()
    for transport in ends:
        await transport.close()


def _floor(source: int, target: int, chunk_count: int) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    left = socket.create_connection(listener.getsockname())
    right, _ = listener.accept()
    listener.close()

    def send() -> None:
        offset, size = 0, chunk_count * CHUNK_BYTES
        while offset < size:
            offset += os.sendfile(left.fileno(), source, offset, size - offset)

    thread = threading.Thread(target=send)
    thread.start()
    buffer = memoryview(bytearray(CHUNK_BYTES))
    for chunk in range(chunk_count):
        right.recv_into(buffer, CHUNK_BYTES, socket.MSG_WAITALL)
        blake3(buffer).digest()
        os.pwrite(target, buffer, chunk * CHUNK_BYTES)
    thread.join()
    left.close()
    right.close()


def _cost_of(work: Callable[[], None], nbytes: int) -> Cost:
    cpu_s = _cpu_s()
    wall_s = os.times().elapsed
    work()
    wall_s, cpu_s = os.times().elapsed - wall_s, _cpu_s() - cpu_s
    return Cost(cpu_s / nbytes * 1e9, nbytes / 1e9 / max(wall_s, 0.01))


def measure(size_mib: int = 512) -> tuple[Cost, Cost]:
    """Return the costs over a link and of the floor: medians of interleaved runs."""
    count = size_mib * (1 << 20) // CHUNK_BYTES
    assert geometry_for(size_mib << 20).chunk_size_bytes == CHUNK_BYTES
    with tempfile.TemporaryDirectory() as directory:
        source = os.open(Path(directory) / "source", os.O_RDWR | os.O_CREAT)
        target = os.open(Path(directory) / "target", os.O_RDWR | os.O_CREAT)
        rng = Random(1)
        for chunk in range(count):
            os.pwrite(source, rng.randbytes(CHUNK_BYTES), chunk * CHUNK_BYTES)
        os.posix_fallocate(target, 0, count * CHUNK_BYTES)
        links, floors = [], []
        for _ in range(RUNS + 1):
            nbytes = count * CHUNK_BYTES
            links.append(_cost_of(lambda: asyncio.run(_over_a_link(source, target, count)), nbytes))
            floors.append(_cost_of(lambda: _floor(source, target, count), nbytes))
        os.close(source)
        os.close(target)
    return _median(links[1:]), _median(floors[1:])


def _median(costs: list[Cost]) -> Cost:
    return Cost(
        statistics.median(c.cpu_s_per_gb for c in costs),
        statistics.median(c.gb_per_s for c in costs),
    )
