"""What of one blob to offer to which reader, so that a proxy sends each chunk about once.

A peer offers all it holds to everybody. A proxy offers a fresh chunk to one reader of its own
datacenter first; the others get it from that reader. Only what nobody passes on in time is offered
to all. Measured on 15 hosts at 100 Mbit/s: 1.08 copies leave the seed this way, 1.75 to 2.0 with
libtorrent.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import HostId

# Consecutive chunks go to the same reader, so that it can ask for them in one run of 1 MiB.
STRIPE_CHUNKS: Final = 4
# How long the first reader of a chunk has until the chunk is offered to all: one stall deadline.
GRACE_S: Final = 2.0


@dataclass(slots=True)
class OfferTo:
    """Order: tell `host` that it can have the chunks `bits`."""

    host: HostId
    bits: int


class OfferPlan:
    """Pure. `spread`: behave as a seed that readers share; else offer everything to everybody."""

    def __init__(self, *, spread: bool) -> None:
        self._spread = spread
        self._held = 0
        self._told: dict[HostId, int] = {}
        self._copies: dict[HostId, int] = {}  # what readers said they hold themselves
        self._sharers: list[HostId] = []
        self._turn = 0
        self._pending: deque[tuple[float, int]] = deque()  # (deadline, bits), by time

    def reader_joined(self, host: HostId, *, shares: bool, now_s: float) -> list[OfferTo]:
        """`shares`: a peer of our datacenter, which passes chunks on to the other readers there."""
        if host in self._told:
            return []
        self._told[host] = 0
        if not (self._spread and shares):
            return self._tell(host, self._held)
        self._sharers.append(host)
        elsewhere = 0
        for other, bits in self._copies.items():
            if other != host and other in self._told:
                elsewhere |= bits
        scarce = self._held & ~elsewhere & ~self._being_spread()
        return self._tell(host, scarce)

    def reader_left(self, host: HostId, now_s: float) -> list[OfferTo]:
        """What only `host` was told of goes to the others."""
        told = self._told.pop(host, 0)
        self._copies.pop(host, None)
        if host in self._sharers:
            self._sharers.remove(host)
            return self._tell_all(told)
        return []

    def reader_holds(self, host: HostId, bits: int) -> None:
        self._copies[host] = self._copies.get(host, 0) | bits

    def landed(self, bits: int, now_s: float) -> list[OfferTo]:
        """We hold `bits` now, verified and vouched for."""
        fresh = bits & ~self._held
        self._held |= fresh
        if not (self._spread and self._sharers and fresh):
            return self._tell_all(fresh)
        orders: list[OfferTo] = []
        for host in [h for h in self._told if h not in self._sharers]:
            orders += self._tell(host, fresh)
        self._pending.append((now_s + GRACE_S, fresh))
        while fresh:
            first = (fresh & -fresh).bit_length() - 1
            stripe_end = (first // STRIPE_CHUNKS + 1) * STRIPE_CHUNKS
            stripe = fresh & ((1 << stripe_end) - 1)
            fresh &= ~stripe
            owner = self._sharers[first // STRIPE_CHUNKS % len(self._sharers)]
            orders += self._tell(owner, stripe)
        return orders

    def dropped(self) -> None:
        """The map is gone: nothing is held or told any more."""
        self._held = 0
        self._pending.clear()
        self._copies.clear()
        for host in self._told:
            self._told[host] = 0

    def next_deadline_s(self) -> float | None:
        return self._pending[0][0] if self._pending else None

    def handle_deadline(self, now_s: float) -> list[OfferTo]:
        """Offer to all what no reader passes on by now."""
        late = 0
        while self._pending and self._pending[0][0] <= now_s:
            late |= self._pending.popleft()[1]
        return self._tell_all(late & ~self._passed_on())

    def _passed_on(self) -> int:
        """Chunks that a second reader has: with one copy alone nobody may know of its holder."""
        once, twice = 0, 0
        for bits in self._copies.values():
            twice |= once & bits
            once |= bits
        return twice

    def _being_spread(self) -> int:
        bits = 0
        for _, fresh in self._pending:
            bits |= fresh
        return bits

    def _tell(self, host: HostId, bits: int) -> list[OfferTo]:
        fresh = bits & ~self._told[host]
        self._told[host] |= fresh
        return [OfferTo(host, fresh)] if fresh else []

    def _tell_all(self, bits: int) -> list[OfferTo]:
        return [order for host in self._told for order in self._tell(host, bits)]
