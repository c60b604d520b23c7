"""Many hosts that keep a link to one daemon, in a process of their own; orders come on stdin.

    dial N           N more hosts dial, a few at a time; answers once each has a link or was refused
    interest DIGEST  all say that they want it, and then ask for nothing
    echo             from now on they offer all that they are offered, and refuse to send it
    drop             all end their links

Each order is answered by one JSON line: live links, refusals by reason, links that were lost.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import struct
import sys
from collections import Counter
from pathlib import Path
from typing import Final

from p2pdist.errors import LinkRefused, PeerFault
from p2pdist.exchange.codec import Decoder, encode
from p2pdist.exchange.frames import Interest, Offer, Ping, Pong, Refuse, RefuseReason, Request
from p2pdist.exchange.transport import MAGIC
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.handshake import PROOF_BYTES, ClientHandshake
from p2pdist.model.ids import HostId, parse_digest
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.daemon import raise_descriptor_limit
from p2pdist.process.identity import read_secret

AT_ONCE: Final = 64
DIAL_S: Final = 30.0
_LENGTH: Final = struct.Struct(">H")


class Dialler(asyncio.Protocol):
    """One host: shakes hands, answers pings, and says what it is told to."""

    def __init__(self, number: int, secret: bytes) -> None:
        member = Member(
            HostId(f"{number:032x}"), Role.PEER, Place("dc1"), (Address("10.0.0.1", 1),)
        )
        self.shaken: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """"up", the reason of a refusal, or "lost"."""
        self.live = False
        self.echoes = False
        self._hand = ClientHandshake(ClusterSecrets((secret,)), member, os.urandom)
        self._buffer = b""
        self._decoder = Decoder()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(MAGIC + _LENGTH.pack(len(self._hand.hello)) + self._hand.hello)

    def data_received(self, data: bytes) -> None:
        if not self.live:
            self._buffer += data
            data = self._shake()
        for frame in self._decoder.feed(data):
            if isinstance(frame, Ping):
                self.transport.write(encode(Pong(frame.nonce)))
            elif self.echoes and isinstance(frame, Offer):
                self.transport.write(encode(frame))
            elif self.echoes and isinstance(frame, Request):
                refusal = Refuse(frame.request_id, RefuseReason.UNKNOWN)
                self.transport.write(encode(refusal))

    def _shake(self) -> bytes:
        """Go on with the handshake; return what came behind it."""
        (length,) = _LENGTH.unpack_from(self._buffer.ljust(_LENGTH.size, b"\0"))
        end = _LENGTH.size + length
        if len(self._buffer) < max(end + PROOF_BYTES, _LENGTH.size + 1):
            return b""
        hello, proof = self._buffer[_LENGTH.size : end], self._buffer[end : end + PROOF_BYTES]
        try:
            answer, _ = self._hand.finish(hello, proof)
        except (LinkRefused, PeerFault) as error:
            self.shaken.set_result(error.reason)
            self.transport.close()
            return b""
        self.transport.write(answer)
        self.live = True
        self.shaken.set_result("up")
        return self._buffer[end + PROOF_BYTES :]

    def connection_lost(self, exc: Exception | None) -> None:
        self.live = False
        if not self.shaken.done():
            self.shaken.set_result("lost")


class Hosts:
    def __init__(self, port: int, secret: bytes) -> None:
        self._port = port
        self._secret = secret
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._diallers: list[Dialler] = []
        self._answers: Counter[str] = Counter()

    async def take(self, order: str) -> None:
        match order.split():
            case ["dial", count]:
                await asyncio.gather(*(self._dial() for _ in range(int(count))))
            case ["interest", digest]:
                said = encode(Interest(parse_digest(digest)))
                for dialler in self._diallers:
                    if dialler.live:
                        dialler.transport.write(said)
            case ["echo"]:
                for dialler in self._diallers:
                    dialler.echoes = True
            case ["drop"]:
                for dialler in self._diallers:
                    dialler.transport.abort()
                await asyncio.sleep(0)
                self._diallers.clear()
                self._answers.clear()
            case ["count"]:
                pass
            case _:
                raise SystemExit(f"no such order: {order!r}")

    async def _dial(self) -> None:
        number = len(self._diallers) + 1
        self._diallers.append(dialler := Dialler(number, self._secret))
        async with self._slots, asyncio.timeout(DIAL_S):
            loop = asyncio.get_running_loop()
            await loop.create_connection(lambda: dialler, "127.0.0.1", self._port)
            self._answers[await dialler.shaken] += 1

    def state(self) -> dict[str, object]:
        live = sum(dialler.live for dialler in self._diallers)
        return {"live": live, "answers": dict(self._answers)}


async def run(port: int, secret: bytes) -> None:
    hosts, reader = Hosts(port, secret), asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        await hosts.take(line.decode())
        print(json.dumps(hosts.state()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale.diallers")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--secret-file", type=Path, required=True)
    options = parser.parse_args()
    raise_descriptor_limit()
    asyncio.run(run(options.port, read_secret(options.secret_file)))


if __name__ == "__main__":
    main()
