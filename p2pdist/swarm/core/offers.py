"""What of one blob to offer to which listener, and when.

Listeners are those that read the blob from us and, so that seeds know what was passed on, those
that we read it from. A node that is still fetching offers all it has to everybody, in batches: each
of its chunks comes from a seed that gave it to nobody else. A seed (a proxy, or whoever has the
whole blob) promises different chunks to the readers that share with each other (`SeedPlan`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.bits import count_of, without
from p2pdist.model.deadlines import soonest
from p2pdist.model.ids import HostId
from p2pdist.swarm.core.referrals import Referrals
from p2pdist.swarm.core.seeding import SeedPlan
from p2pdist.swarm.core.uplink import Uplink

# At 100 Mbit/s two or three chunks land meanwhile, in one frame a listener instead of three.
BATCH_S: Final = 0.05
BATCH_MAX_S: Final = 0.1
"""What takes long can wait longer. Each host says what it got to some dozen others: at 100 Mbit/s
that is some five frames for each chunk every 50 ms, and half of them every 100 ms (reckoned)."""
BATCH_SHARE: Final = 0.05
"""Of the time that it took, and of what is left: at either end others wait for it."""


@dataclass(slots=True)
class OfferTo:
    """Order: tell `host` that it can have the chunks `bits`."""

    host: HostId
    bits: int


@dataclass(slots=True)
class _Listener:
    reads: bool = False
    source: bool = False
    """We read from it."""
    shares: bool = False
    """It reads, and passes chunks on to the others: a seed gives it what it is promised."""
    demand: bool = False
    """It asks for the parts that it needs, and is promised nothing."""
    told: int = 0
    holds: int = 0
    due: int = 0
    """To be offered with the next orders."""

    @property
    def promised(self) -> bool:
        """A seed spreads chunks over it and its like."""
        return self.shares and not self.demand


class OfferPlan:
    """Pure. Events change it; `take_orders` says what is due, once `next_deadline_s` is there."""

    def __init__(self, chunk_size_bytes: int, uplink: Uplink, *, seed: bool) -> None:
        """`seed`: spread chunks over the readers from the start; else once nothing lacks."""
        self._chunk_size_bytes = chunk_size_bytes
        self._uplink = uplink
        self._seed = seed
        self._seeding = self._new_seeding(spares=True) if seed else None
        self._referrals = Referrals()
        self._held = 0
        self._listeners: dict[HostId, _Listener] = {}
        self._due: dict[HostId, _Listener] = {}  # those with something due
        self._batch = 0  # landed, and not yet offered to those who are offered everything
        self._batch_s = 0.0  # when it may go
        self._began_s: float | None = None  # when the first chunk landed
        self._came = 0  # chunks since then
        self._held_count = 0  # of `_held`

    def _new_seeding(self, *, spares: bool) -> SeedPlan:
        return SeedPlan(self._chunk_size_bytes, self._uplink, spares=spares)

    def close(self) -> None:
        """Nothing is offered to anybody any more, whatever still lands."""
        self._listeners.clear()
        self._due.clear()
        self._end_seeding()

    def _end_seeding(self) -> None:
        if self._seeding is not None:
            self._seeding.close()
            self._seeding = None

    # --- listeners ------------------------------------------------------------------------------

    def reader_joined(
        self, host: HostId, *, shares: bool, now_s: float, demand: bool = False
    ) -> None:
        """`shares`: a peer of our datacenter, which passes chunks on to the other readers there.
        `demand`: it asks for the parts that it needs, and promises would be lost on it.
        """
        listener = self._listeners.setdefault(host, _Listener())
        listener.reads, listener.shares, listener.demand = True, shares, demand
        listener.told = 0  # it may not have known the blob when it was told as a source of ours
        self._serve(host, listener, now_s)

    def reader_demands(self, host: HostId, demand: bool, now_s: float) -> None:
        """It says that it needs parts only, or all from now on."""
        listener = self._listeners.get(host)
        if listener is None or not listener.reads or listener.demand is demand:
            return
        listener.demand = demand
        self._referrals.left(host)
        self._serve(host, listener, now_s)

    def _serve(self, host: HostId, listener: _Listener, now_s: float) -> None:
        """Begin to tell a reader what there is for it."""
        if self._seeding is not None and listener.demand:
            self._seeding.left(host)
        if self._hears_all(listener):
            self._tell(host, listener, without(self._held, self._batch))
        elif self._seeding is not None and listener.promised:
            self._seeding.joined(host, now_s, offered=listener.told | listener.due)
        if self._seeding is not None:
            self._promise(now_s)

    def _hears_all(self, listener: _Listener) -> bool:
        """It is offered all that we hold.

        A demand reader has to know which peer has what it needs; a proxy, which has all of it, it
        asks without a word, and would take its offers for promises later.
        """
        if self._seeding is None or not listener.shares:
            return True
        return listener.demand and not self._seed

    def reader_hungry(self, host: HostId, hungry: bool, now_s: float) -> None:
        """It says that we would bring it far more than its other sources do, or that no more."""
        if self._seeding is not None:
            self._seeding.set_hungry(host, hungry)
            self._promise(now_s)

    def source_joined(self, host: HostId) -> None:
        """We read from it: it learns what we hold, to give that to nobody else and us the rest."""
        listener = self._listeners.setdefault(host, _Listener())
        listener.source = True
        if self._hears_all(listener):
            self._tell(host, listener, without(self._held, self._batch))

    def reader_left(self, host: HostId, now_s: float) -> None:
        """It does not read any more; what it has is still to be had there."""
        listener = self._listeners.get(host)
        if listener is None or not listener.reads:
            return
        listener.reads = listener.shares = listener.demand = False
        self._referrals.left(host)
        if not listener.source:
            self._forget(host)
        if self._seeding is not None:
            self._seeding.left(host)
            self._promise(now_s)

    def sources_left(self) -> None:
        """We read from nobody any more."""
        for host, listener in list(self._listeners.items()):
            listener.source = False
            if not listener.reads:
                self._forget(host)

    def knows(self, host: HostId) -> bool:
        """It reads from us, or we from it, or it has what we gave it."""
        seeding = self._seeding
        return host in self._listeners or (seeding is not None and seeding.knows(host))

    def host_gone(self, host: HostId, now_s: float) -> None:
        """It cannot be reached any more."""
        self._forget(host)
        self._referrals.left(host)
        if self._seeding is not None:
            self._seeding.gone(host)
            self._promise(now_s)

    def host_holds(self, host: HostId, bits: int, *, shares: bool, now_s: float) -> bool:
        """It says so; return whether anything may be due sooner now. `shares`: as in
        `reader_joined`; what others have, such as the proxy that we copy from, is not to be had
        there for our readers."""
        if (listener := self._listeners.get(host)) is not None:
            listener.holds |= bits
        self._referrals.holds(host, bits)
        if self._seeding is None or not shares:
            return False
        self._seeding.holds(host, bits, now_s)
        self._promise(now_s)
        return True

    def holds_any(self, host: HostId, bits: int) -> bool:
        """It said that it holds some of `bits`."""
        listener = self._listeners.get(host)
        return listener is not None and bool(listener.holds & bits)

    def host_retracted(self, host: HostId, now_s: float) -> None:
        if (listener := self._listeners.get(host)) is not None:
            listener.holds = 0
        if self._seeding is not None:
            self._seeding.retracted(host)
            self._promise(now_s)

    def _forget(self, host: HostId) -> None:
        self._listeners.pop(host, None)
        self._due.pop(host, None)

    # --- our side -------------------------------------------------------------------------------

    def landed(self, bits: int, now_s: float, *, whole: bool = False) -> None:
        """We hold `bits` now, verified and vouched for; `whole`: nothing lacks any more."""
        fresh = without(bits, self._held)
        count = count_of(fresh)
        if self._began_s is None:  # with what lay here before
            self._began_s = now_s
        else:
            self._came += count
        self._held_count += count
        self._held |= fresh
        self._batch |= fresh
        if whole and self._seeding is None:
            self._become_seed(now_s)
        if self._seeding is not None:
            self._seeding.hold(fresh, whole=whole)
            self._promise(now_s)

    def lost(self, bits: int, now_s: float) -> None:
        """These are not here any more: nobody is offered them until they land anew, and who was is
        offered them again then."""
        self._held, self._batch = without(self._held, bits), without(self._batch, bits)
        self._held_count = self._held.bit_count()
        for listener in self._listeners.values():
            listener.told = without(listener.told, bits)
            listener.due = without(listener.due, bits)
        if self._seeding is None:
            return
        self._end_seeding()  # rare enough to begin anew with what is left
        if self._seed:
            self._seeding = self._new_seeding(spares=True)
            self._seeding.hold(self._held, whole=False)
        for host, listener in self._listeners.items():
            self._serve(host, listener, now_s)
            if self._seeding is not None and listener.promised:
                self._seeding.holds(host, listener.holds, now_s)

    def _become_seed(self, now_s: float) -> None:
        """Those who read from us are told the rest; whoever joins from now on is promised."""
        self._flush_batch()
        self._seeding = self._new_seeding(spares=False)
        for host, listener in self._listeners.items():
            if listener.promised:
                self._seeding.joined(host, now_s, offered=listener.told | listener.due)
                self._seeding.holds(host, listener.holds, now_s)
        self._seeding.hold(self._held, whole=True)

    def refers(self, host: HostId, bits: int, now_s: float) -> bool:
        """Whether it is refused `bits`, which it asks for: see `referrals`."""
        if self._seeding is None or not self._feeds_demand(host):
            return False
        return self._referrals.refers(host, bits, self._seeding.passed_on, now_s)

    def _feeds_demand(self, host: HostId) -> bool:
        """It is a demand reader near by, and we are the proxy that has it all."""
        listener = self._listeners.get(host)
        return self._seed and listener is not None and listener.shares and listener.demand

    def asked(self, host: HostId, bits: int, now_s: float) -> None:
        """It is being sent `bits`, which it asked for."""
        if self._feeds_demand(host):
            self._referrals.sending(host, bits)
        if self._seeding is not None:
            self._seeding.asked(host, bits, now_s)

    def sent(self, host: HostId, bits: int, unsent: int, now_s: float) -> None:
        """What it asked for is over: `bits` went out, `unsent` did not."""
        self._referrals.sent(host, bits | unsent)
        if self._seeding is not None:
            if self._feeds_demand(host):
                self._seeding.holds(host, bits, now_s)
            self._seeding.sent(host, bits, now_s)
            self._seeding.unsent(host, unsent)
            self._promise(now_s)

    def cut_into(self, chunk_size_bytes: int, now_s: float) -> None:
        """The blob is cut otherwise than was thought."""
        if chunk_size_bytes != self._chunk_size_bytes:
            self._chunk_size_bytes = chunk_size_bytes
            self.dropped(now_s)

    def dropped(self, now_s: float) -> None:
        """The map is gone: nothing is held or told any more."""
        self._held, self._batch, self._began_s = 0, 0, None
        self._came = self._held_count = 0
        self._due.clear()
        self._end_seeding()
        self._seeding = self._new_seeding(spares=True) if self._seed else None
        for host, listener in self._listeners.items():
            listener.told, listener.holds, listener.due = 0, 0, 0
            if self._seeding is not None and listener.promised:
                self._seeding.joined(host, now_s)

    # --- orders ---------------------------------------------------------------------------------

    def next_deadline_s(self) -> float | None:
        """When orders are due; a moment that has passed: now."""
        if self._due:
            return 0.0
        batch_s = self._batch_s if self._batch and self._listeners else None
        if self._seeding is None:
            return batch_s
        return soonest(batch_s, self._seeding.next_deadline_s())

    def take_orders(self, now_s: float, *, chunks: int = 0, flush: bool = False) -> list[OfferTo]:
        """The offers to make now; `chunks`: of the whole blob; `flush`: also of a batch that could
        wait."""
        if self._seeding is not None:
            due_s = self._seeding.next_deadline_s()
            if due_s is not None and due_s <= now_s:
                self._seeding.expire(now_s)
                self._promise(now_s)
        if self._batch and (flush or now_s >= self._batch_s):
            self._flush_batch()
            self._batch_s = now_s + self._batch_wait_s(now_s, chunks)
        due, self._due = self._due, {}
        orders: list[OfferTo] = []
        for host, listener in due.items():
            bits, listener.due = without(listener.due, listener.holds), 0
            listener.told |= bits
            if bits:
                orders.append(OfferTo(host, bits))
        return orders

    def _batch_wait_s(self, now_s: float, chunks: int) -> float:
        """How long the next batch may gather."""
        age_s = now_s - self._began_s if self._began_s is not None else 0.0
        rest_s = age_s * (chunks - self._held_count) / max(1, self._came)
        return min(BATCH_MAX_S, max(BATCH_S, BATCH_SHARE * min(age_s, rest_s)))

    def _flush_batch(self) -> None:
        bits, self._batch = self._batch, 0
        for host, listener in self._listeners.items():
            if self._hears_all(listener):
                self._tell(host, listener, bits)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert not self._batch & ~self._held
        assert self._held_count == self._held.bit_count()
        assert self._began_s is not None or not self._held
        for host, listener in self._listeners.items():
            assert listener.reads or listener.source, "who neither reads nor is read from"
            assert listener.reads or not (listener.shares or listener.demand)
            assert not listener.due or self._due.get(host) is listener
        assert self._due.keys() <= self._listeners.keys()
        if self._seeding is not None:
            self._seeding.validate()

    def _promise(self, now_s: float) -> None:
        assert self._seeding is not None
        for host, bits in self._seeding.refill(now_s):
            if (listener := self._listeners.get(host)) is not None:
                self._tell(host, listener, bits)

    def _tell(self, host: HostId, listener: _Listener, bits: int) -> None:
        fresh = without(bits, listener.told)
        if fresh:
            listener.due |= fresh
            self._due[host] = listener
