"""A TCP proxy that does to a byte stream what networks do: toxiproxy's vocabulary, in asyncio.

    async with FaultProxy(target) as proxy:          # dial proxy.address instead of target
        proxy.down.append(Latency(0.02))             # what the target sends
        proxy.up.append(Bandwidth(1_000_000))        # what the client sends

Toxics are looked at for every piece of every connection, so they may be changed at any time.
`python -m tests.faults.fault_proxy LISTEN TARGET --down latency=0.02` is one for a namespace.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Final, Protocol, Self

from p2pdist.model.members import Address
from p2pdist.settings_kinds import parse_address

READ_BYTES: Final = 64 * 1024
# What a delayed link holds on the way: 50 ms at 1 Gbit/s are 6 MB.
PIPE_PIECES_MAX: Final = 256


@dataclass
class Stream:
    """One direction of one connection, as the toxics see it."""

    rng: Random
    sent_bytes: int = 0
    free_at_s: float = 0.0
    """When the link has sent what it was given."""


class Cut(Exception):
    """End the connection: by FIN, or by RST."""

    def __init__(self, *, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


class Toxic(Protocol):
    """Passes a piece on: as pieces and the moment each is due; raises Cut to end the connection."""

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]: ...


@dataclass
class Latency:
    """Delay everything by `latency_s`, give or take `jitter_s`; the order stays."""

    latency_s: float
    jitter_s: float = 0.0

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        jitter_s = stream.rng.uniform(-self.jitter_s, self.jitter_s)
        return [(now_s + max(0.0, self.latency_s + jitter_s), data)]


@dataclass
class Bandwidth:
    """Carry at most `bytes_per_s`."""

    bytes_per_s: float

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        stream.free_at_s = max(stream.free_at_s, now_s) + len(data) / self.bytes_per_s
        return [(stream.free_at_s, data)]


@dataclass
class Timeout:
    """Let nothing through; with `close_s` close the connection after that long."""

    close_s: float | None = None

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        return []


@dataclass
class Slicer:
    """Cut pieces into some `size_bytes`, `delay_s` apart."""

    size_bytes: int
    delay_s: float = 0.0

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        parts = range(0, len(data), self.size_bytes)
        return [
            (now_s + i * self.delay_s, data[at : at + self.size_bytes])
            for i, at in enumerate(parts)
        ]


@dataclass
class LimitData:
    """Close the connection after `limit_bytes`."""

    limit_bytes: int

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        if stream.sent_bytes >= self.limit_bytes:
            raise Cut
        return [(now_s, data[: self.limit_bytes - stream.sent_bytes])]


@dataclass
class Freeze:
    """Let `after_bytes` through, then nothing, with the connection open."""

    after_bytes: int

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        room = self.after_bytes - stream.sent_bytes
        return [(now_s, data[:room])] if room > 0 else []


@dataclass
class ResetPeer:
    """Reset the connection once `after_bytes` went through."""

    after_bytes: int = 0

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        if stream.sent_bytes + len(data) > self.after_bytes:
            raise Cut(reset=True)
        return [(now_s, data)]


@dataclass
class Corrupt:
    """Flip a bit of a share of the pieces of a full read."""

    share: float

    def apply(self, stream: Stream, data: bytes, now_s: float) -> list[tuple[float, bytes]]:
        if len(data) < READ_BYTES // 4 or stream.rng.random() >= self.share:
            return [(now_s, data)]
        spoilt = bytearray(data)
        spoilt[len(data) // 2] ^= 1
        return [(now_s, bytes(spoilt))]


@dataclass
class FaultProxy:
    """Forwards connections on `address` to `target`, through the toxics of each direction."""

    target: Address
    listen: Address = field(default_factory=lambda: Address("127.0.0.1", 0))
    seed: int = 1
    up: list[Toxic] = field(default_factory=list)
    down: list[Toxic] = field(default_factory=list)
    slow_close_s: float = 0.0
    """How long the end of the target's stream is kept from the client."""
    refuse: bool = False
    """Close new connections at once."""

    def __post_init__(self) -> None:
        self.address = self.listen
        self.connections = 0
        self.bytes_up = 0
        self.bytes_down = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, self.listen.host, self.listen.port)
        self.address = Address(*self._server.sockets[0].getsockname()[:2])
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut_all()

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    async def cut_all(self) -> None:
        """End every connection that is open now."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            if not self.refuse:
                await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # cut_all: the server must not log it
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(
                self.target.host, self.target.port
            )
        except OSError:
            return
        rng = Random(self.seed + self.connections)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, far_writer, "up", Stream(rng)))
                both.create_task(self._pump(far_reader, writer, "down", Stream(rng)))
        except* Cut as cuts:
            if cuts.subgroup(lambda error: isinstance(error, Cut) and error.reset):
                _reset(writer)
        except* OSError:
            pass  # one of the two went away
        finally:
            far_writer.close()

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        direction: str,
        stream: Stream,
    ) -> None:
        """Read pieces and write each when it is due; a full pipe stops the reading."""
        pipe: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(PIPE_PIECES_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._drain(pipe, sink, direction, stream))
            loop = asyncio.get_running_loop()
            while data := await source.read(READ_BYTES):
                for due in self._through(direction, stream, data, loop.time()):
                    await pipe.put(due)
                await self._maybe_close(direction)
            if self._holds(direction):
                await asyncio.Event().wait()  # nothing gets through, the end of the stream neither
            await pipe.put((loop.time() + (self.slow_close_s if direction == "down" else 0), b""))

    def _holds(self, direction: str) -> bool:
        toxics = self.up if direction == "up" else self.down
        return any(
            isinstance(toxic, Freeze) or (isinstance(toxic, Timeout) and toxic.close_s is None)
            for toxic in toxics
        )

    def _through(
        self, direction: str, stream: Stream, data: bytes, now_s: float
    ) -> list[tuple[float, bytes]]:
        pieces = [(now_s, data)]
        for toxic in list(self.up if direction == "up" else self.down):
            pieces = [
                out for due_s, part in pieces for out in toxic.apply(stream, part, due_s) if out[1]
            ]
        stream.sent_bytes += sum(len(part) for _, part in pieces)
        return pieces

    async def _maybe_close(self, direction: str) -> None:
        for toxic in self.up if direction == "up" else self.down:
            if isinstance(toxic, Timeout) and toxic.close_s is not None:
                await asyncio.sleep(toxic.close_s)
                raise Cut

    async def _drain(
        self,
        pipe: asyncio.Queue[tuple[float, bytes]],
        sink: asyncio.StreamWriter,
        direction: str,
        stream: Stream,
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s, data = await pipe.get()
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                with contextlib.suppress(OSError):
                    sink.write_eof()
                return
            sink.write(data)
            await sink.drain()
            if direction == "up":
                self.bytes_up += len(data)
            else:
                self.bytes_down += len(data)


def _reset(writer: asyncio.StreamWriter) -> None:
    raw: socket.socket | None = writer.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def serving(proxy: FaultProxy) -> AsyncIterator[None]:
    async with proxy:
        yield


_TOXICS: Final[dict[str, Callable[[str], Toxic]]] = {
    "latency": lambda v: Latency(float(v)),
    "bandwidth": lambda v: Bandwidth(float(v)),
    "limit_data": lambda v: LimitData(int(v)),
    "freeze": lambda v: Freeze(int(v)),
    "timeout": lambda _: Timeout(),
    "slicer": lambda v: Slicer(int(v)),
    "reset_peer": lambda v: ResetPeer(int(v)),
}


async def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("listen", type=parse_address)
    parser.add_argument("target", type=parse_address)
    parser.add_argument("--up", action="append", default=[], metavar="TOXIC=VALUE")
    parser.add_argument("--down", action="append", default=[], metavar="TOXIC=VALUE")
    given = parser.parse_args()
    proxy = FaultProxy(given.target, given.listen)
    for words, toxics in ((given.up, proxy.up), (given.down, proxy.down)):
        toxics += [_TOXICS[kind](value) for kind, _, value in (w.partition("=") for w in words)]
    async with proxy:
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
