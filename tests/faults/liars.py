"""Peers that know the cluster secret and lie in one of several ways."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Final

from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.statements import Keyring
from tests.fakes.evil import EvilPeer
from tests.fakes.secrets import always

_PRIME_2: Final = 0xC2B2AE3D27D4EB4F
_PRIME_1: Final = 0x9E3779B185EBCA87
_MASK: Final = (1 << 64) - 1

Answer = Callable[[bytes, Random], bytes | None]
"""From a true chunk to what is sent in its place; None: nothing at all."""


def forge_crc32(chunk: bytes, _: Random) -> bytes:
    """Other bytes with the same CRC-32: a bit is flipped and four bytes make up for it."""
    forged = bytearray(chunk)
    forged[100] ^= 1
    target = zlib.crc32(chunk)
    # CRC-32 is linear: the last four bytes that give `target` solve 32 linear equations over GF(2).
    forged[-4:] = bytes(4)
    base = zlib.crc32(forged)
    effects = []
    for bit in range(32):
        forged[-4:] = (1 << bit).to_bytes(4, "little")
        effects.append(zlib.crc32(forged) ^ base)
    forged[-4:] = _solve(effects, base ^ target).to_bytes(4, "little")
    return bytes(forged)


def _solve(effects: list[int], wanted: int) -> int:
    """Which of `effects` to combine by exclusive or so that they make `wanted`; as a bit set."""
    basis: dict[int, tuple[int, int]] = {}
    for bit, effect in enumerate(effects):
        effect, used = _reduce(effect, 1 << bit, basis)
        if effect:
            basis[effect.bit_length()] = (effect, used)
    rest, used = _reduce(wanted, 0, basis)
    assert rest == 0
    return used


def _reduce(value: int, used: int, basis: dict[int, tuple[int, int]]) -> tuple[int, int]:
    while value and value.bit_length() in basis:
        other, with_it = basis[value.bit_length()]
        value, used = value ^ other, used ^ with_it
    return value, used


def forge_xxh64(chunk: bytes, _: Random) -> bytes:
    """Other bytes with the same xxh64: what one 8-byte word changes in its lane the next undoes."""
    first, second = (int.from_bytes(chunk[at : at + 8], "little") for at in (0, 32))
    start = (_PRIME_1 + _PRIME_2) & _MASK  # the first lane, seed 0
    other = first ^ 1
    undo = (_round(start, first) - _round(start, other)) * pow(_PRIME_2, -1, 1 << 64)
    forged = bytearray(chunk)
    forged[0:8] = other.to_bytes(8, "little")
    forged[32:40] = ((second + undo) & _MASK).to_bytes(8, "little")
    return bytes(forged)


def _round(lane: int, word: int) -> int:
    mixed = (lane + word * _PRIME_2) & _MASK
    return ((mixed << 31 | mixed >> 33) & _MASK) * _PRIME_1 & _MASK


def corrupt(share: float) -> Answer:
    """Flip a bit of a share of the chunks."""

    def answer(chunk: bytes, rng: Random) -> bytes:
        if rng.random() >= share:
            return chunk
        spoilt = bytearray(chunk)
        spoilt[rng.randrange(len(chunk))] ^= 1
        return bytes(spoilt)

    return answer


def silent(chunk: bytes, rng: Random) -> None:
    """Claim everything, send nothing."""


class Liar(EvilPeer):
    """Offers every chunk of `content` and answers requests with what `answer` makes of it."""

    def __init__(self, keyring: Keyring, digest: Digest, content: bytes, answer: Answer) -> None:
        super().__init__(keyring, digest)
        self.requests = 0
        self._content = content
        self._answer = answer
        self._rng = Random(4)
        self._geometry = geometry_for(len(content))

    def _send_garbage(self, link: Link, request: fr.Request) -> None:
        self.requests += 1
        for chunk in range(request.first, request.first + request.count):
            at, length = self._geometry.offset(chunk), self._geometry.length(chunk)
            data = self._answer(self._content[at : at + length], self._rng)
            if data is None:
                return
            for offset in range(0, length, fr.SLICE_BYTES_MAX):
                payload = memoryview(data)[offset : offset + fr.SLICE_BYTES_MAX]
                link.send(fr.Data(request.request_id, chunk, offset, payload))
            self.chunks_sent += 1


class Mute(EvilPeer):
    """Holds nothing, or says so: claims none."""

    def _offer_all(self, link: Link, head: object) -> None: ...


@asynccontextmanager
async def joined(
    evil: EvilPeer, number: int, victims: list[Address], secret: bytes, digest: Digest
) -> AsyncIterator[EvilPeer]:
    """`evil`, linked to all `victims`, with its interest declared."""
    me = Member(HostId(f"{number:032x}"), Role.PEER, Place("dc1"))
    transport = ExchangeTransport(
        evil,
        secret=always(secret),
        me=lambda: me,
        limits=ExchangeLimits(),
    )
    try:
        for victim in victims:
            link = await transport.dial(victim, timeout_s=5)
            link.send(fr.Interest(digest))
        yield evil
    finally:
        await transport.close()
        await asyncio.sleep(0)
