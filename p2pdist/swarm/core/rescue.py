"""What to do when what was asked for stays away, or would come sooner from elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from p2pdist.model.bits import lowest, run_length, without
from p2pdist.model.members import Distance
from p2pdist.swarm.core.event_log import Kind
from p2pdist.swarm.core.fetch_events import LookFurther, Order, Rescued, SayHungry, unheard
from p2pdist.swarm.core.requests import FetchCounters, Neighbour, Readers, Requests, Run

STALL_S: Final = 2.0  # registry contract 3.7: per-piece deadline 2 s, then another source
BULK_STALL_S: Final = 10.0
"""A source that serves others first sends bulk at a trickle, one run after the other."""
RUN_STALL_S: Final = 20.0
"""A neighbour that sends, but nothing of its oldest run: a chunk of 256 KiB at 0.13 Mbit/s, the
least that counts as progress, takes 16 s."""
SLOW_PENALTY_S: Final = 5.0
HEDGE_S: Final = 0.5
# A chunk that a reader waits for and nobody offers: its first receiver may not know of this peer.
UNOFFERED_S: Final = 1.0
HEDGE_SHARE: Final = 0.02  # design decision 10: hedges stay within 2 % of the bytes
HEDGES_MIN: Final = 4
STARVE_S: Final = 0.3
LOOK_FURTHER_S: Final = 1.0
# Of what is due later than this it is asked who brings it in `1 / STEAL_FACTOR` of the time.
STEAL_S: Final = 0.2
STEAL_PAUSE_S: Final = 0.02
STEAL_FACTOR: Final = 4.0
# A reader that sees no bytes for so long, from a proxy of unknown speed, is hungry.
HUNGRY_S: Final = 0.1
# It is where the proxy is so many times as fast as all peers together, and saves so much time:
# rates that are measured over a few chunks on busy hosts differ by less.
HUNGRY_FACTOR: Final = 2.0
HUNGRY_GAIN_S: Final = 0.5


class Rescue:
    """The part of a `BlobFetch` that is needed when things go wrong. Pure."""

    def __init__(
        self,
        requests: Requests,
        readers: Readers,
        counters: FetchCounters,
        rng: Random,
        *,
        run_chunks: int,
        urgent: Callable[[], int],
        asks_proxies: bool,
        rescued: Rescued = unheard,
    ) -> None:
        """`asks_proxies`: they may help with more than they promise."""
        self._rescued = rescued
        self._requests = requests
        self._readers = readers
        self._counters = counters
        self._rng = rng
        self._run_chunks = run_chunks
        self._urgent = urgent
        self._asks_proxies = asks_proxies
        self._hungry = False
        self._progress_s = 0.0
        self._looked_s = -LOOK_FURTHER_S
        self._stolen_s = -STEAL_PAUSE_S
        self._escape_chunks = 1
        self._escaped = 0

    def progressed(self, now_s: float) -> None:
        """Chunks came from somewhere, or the fetch begins."""
        self._progress_s = now_s

    def arrived(self, bit: int, now_s: float) -> None:
        """A chunk came that was asked for."""
        self._progress_s = now_s
        if not bit & self._escaped:
            self._escape_chunks = 1

    def tick(self, now_s: float, orders: list[Order]) -> None:
        """Hedge what a reader waits for, take from the slow, ask for more, escape starvation."""
        self._hedge(now_s, orders)
        self.steal(now_s, orders)
        self._feel(now_s, orders)
        self._escape(now_s, orders)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        requests = self._requests
        assert not self._escaped & ~requests.everything
        assert 1 <= self._escape_chunks <= 2 * self._run_chunks
        assert self._counters.hedges <= max(HEDGES_MIN, int(requests.count * HEDGE_SHARE))
        assert self._asks_proxies or not self._hungry

    # --- silence --------------------------------------------------------------------------------

    def give_up_silent(self, now_s: float, orders: list[Order]) -> None:
        """Ask a neighbour for nothing that shows no progress, and let it rest."""
        requests = self._requests
        stall_s = STALL_S if requests.pace is None else BULK_STALL_S
        for neighbour in requests.neighbours.values():
            if not neighbour.runs:
                continue
            silent = now_s - requests.flow(neighbour).progress_s > stall_s
            oldest = next(iter(neighbour.runs.values()))
            if silent or now_s - oldest.progress_s > RUN_STALL_S:
                self._counters.stalls += 1
                self._rescued(Kind.STALLED, neighbour.host, now_s)
                requests.withdraw(neighbour, list(neighbour.runs.values()), now_s, orders)
                neighbour.slow_until_s = now_s + SLOW_PENALTY_S

    # --- hedges ---------------------------------------------------------------------------------

    def _hedge(self, now_s: float, orders: list[Order]) -> None:
        """Ask a second source for what a reader waits for while its source shows no progress."""
        requests = self._requests
        budget = max(HEDGES_MIN, int(requests.count * HEDGE_SHARE))
        for at, chunk, since_s, _ in self._readers.awaited(requests):
            bit = 1 << chunk
            if requests.twins & bit or self._counters.hedges >= budget:
                continue
            holder = self._holder(bit)
            if holder is not None:
                late = now_s - requests.flow(holder).progress_s > HEDGE_S
            else:
                late = chunk == at and bool(bit & requests.wanted())
                late = late and now_s - since_s > UNOFFERED_S
            second = self._second_source(bit, holder, now_s) if late else None
            if second is not None:
                self._counters.hedges += 1
                self._rescued(Kind.HEDGED, second.host, now_s)
                requests.ask(second, chunk, 1, now_s, orders)

    def withdraw_twins(self, bit: int, now_s: float, orders: list[Order]) -> None:
        """Another copy of a chunk that came is not worth its bytes any more. One within a longer
        run comes all the same."""
        if not self._requests.requested & bit:
            return
        for neighbour in self._requests.neighbours.values():
            twins = [run for run in neighbour.runs.values() if run.bits == bit]
            self._requests.withdraw(neighbour, twins, now_s, orders)

    def _holder(self, bit: int) -> Neighbour | None:
        for neighbour in self._requests.neighbours.values():
            if any(run.bits & bit for run in neighbour.runs.values()):
                return neighbour
        return None

    def _second_source(self, bit: int, first: Neighbour | None, now_s: float) -> Neighbour | None:
        others = [
            n
            for n in self._requests.neighbours.values()
            if n is not first and n.slow_until_s <= now_s and (n.offered & bit or n.proxy)
        ]
        self._rng.shuffle(others)
        return min(others, key=lambda n: (n.proxy, len(n.runs)), default=None)

    # --- the slow -------------------------------------------------------------------------------

    def steal(self, now_s: float, orders: list[Order]) -> None:
        """Take from slow neighbours what another one brings in a quarter of the time.

        Others are those that have nothing else to bring us; what a reader waits for next is taken
        to whoever brings it first. Of a silent neighbour nobody knows whether it is slow: it is
        hedged, and given up in the end.
        """
        requests = self._requests
        if requests.pace is not None or now_s - self._stolen_s < STEAL_PAUSE_S:
            return
        slow = [n for n in requests.neighbours.values() if n.runs and self._slow(n, now_s)]
        self._stolen_s = now_s
        if not slow:
            return
        wanted, front = requests.wanted(), self._front()
        idle = [
            n
            for n in requests.neighbours.values()
            if n.slow_until_s <= now_s and not n.offered & wanted
        ]
        slow.sort(key=lambda n: -requests.flow(n).eta_s(0, now_s))
        for victim in slow:
            for run in list(victim.runs.values())[::-1]:
                if not run.bits & requests.twins:  # else another one was asked already
                    able = list(requests.neighbours.values()) if run.bits & front else idle
                    self._steal(victim, run, able, now_s, orders)

    def _slow(self, neighbour: Neighbour, now_s: float) -> bool:
        flow = self._requests.flow(neighbour)
        moves = flow.rated and now_s - flow.progress_s <= HEDGE_S
        return moves and flow.eta_s(0, now_s) > STEAL_S

    def _steal(
        self, victim: Neighbour, run: Run, able: list[Neighbour], now_s: float, orders: list[Order]
    ) -> None:
        requests = self._requests
        left = without(run.bits, requests.verified)
        if not left:
            return  # all of it came from elsewhere; it is on its way here, too
        first = lowest(left)
        thieves = [
            n
            for n in able
            if n is not victim and n.offered >> first & 1 and n.slow_until_s <= now_s
        ]
        if not thieves:
            return
        nbytes = requests.bytes_of(run.bits)
        due_s = requests.flow(victim).eta_s(0, now_s)
        thief = min(thieves, key=lambda n: requests.flow(n).eta_s(nbytes, now_s))
        flow = requests.flow(thief)
        if STEAL_FACTOR * flow.eta_s(nbytes, now_s) >= due_s:
            return
        count = run_length(thief.offered & left, first, self._run_chunks) if flow.rated else 1
        self._counters.steals += 1
        self._rescued(Kind.STOLEN, victim.host, now_s)
        requests.withdraw(victim, [run], now_s, orders)
        requests.ask(thief, first, count, now_s, orders)

    def _front(self) -> int:
        """The chunk that each reader waits for next."""
        bits = 0
        for awaited in self._readers.awaited(self._requests):
            bits |= 1 << awaited.chunk
        return bits

    # --- hunger ---------------------------------------------------------------------------------

    def _feel(self, now_s: float, orders: list[Order]) -> None:
        """Say so when a proxy, which leaves to peers what they have, would bring far more."""
        hungry = self._asks_proxies and self._wants_more(now_s)
        if hungry is not self._hungry:
            self._hungry = hungry
            orders.append(SayHungry(hungry))

    def _wants_more(self, now_s: float) -> bool:
        requests = self._requests
        if not self._readers.ordinary or requests.pace is not None or requests.complete:
            return False  # who only demands asks for what it needs, and is promised nothing
        rates = [
            neighbour.flows.urgent.rate(now_s)
            for neighbour in requests.neighbours.values()
            if neighbour.proxy and neighbour.distance <= Distance.DC
        ]
        if None in rates:
            return self._waits(now_s)
        best = max(filter(None, rates), default=0.0)
        lacking = without(requests.hashed, requests.verified)
        peers = [n for n in requests.neighbours.values() if not n.proxy and n.offered & lacking]
        if not best:
            return False
        if not peers:  # they have it by now, or cannot be reached
            return self._hungry or self._starves(STARVE_S, now_s)
        nbytes = requests.bytes_of(lacking)
        due_s = self._due_s(peers, nbytes, now_s)
        return due_s > max(HUNGRY_FACTOR * nbytes / best, nbytes / best + HUNGRY_GAIN_S)

    def _due_s(self, peers: list[Neighbour], nbytes: int, now_s: float) -> float:
        """In how many seconds `peers` alone would bring `nbytes`; 0 if that cannot be told yet.

        What they can do counts, not what they did: they bring nothing while nothing is asked of
        them. Who was not asked yet is given the chance.
        """
        rate = 0.0
        for peer in peers:
            flow = peer.flows.urgent
            if flow.rated:
                rate += 0.0 if peer.slow_until_s > now_s else flow.rate(now_s) or 0.0
            elif not flow.owed_bytes or now_s - flow.progress_s <= HUNGRY_S:
                return 0.0
        return nbytes / max(rate, 1.0)

    def _waits(self, now_s: float) -> bool:
        """A reader has seen no bytes for a while."""
        return any(
            now_s - awaited.since_s > HUNGRY_S and awaited.chunk == awaited.at
            for awaited in self._readers.awaited(self._requests)
        )

    # --- starvation -----------------------------------------------------------------------------

    def _starves(self, patience_s: float, now_s: float) -> bool:
        """Nothing could be asked for, and nothing came, for so long."""
        requests = self._requests
        waiting = requests.wanted() or without(requests.scope, requests.hashed)
        return bool(waiting and not requests.requested and now_s - self._progress_s >= patience_s)

    def _escape(self, now_s: float, orders: list[Order]) -> None:
        """Nothing comes and nobody offers: ask a proxy for what it did not offer, or look further.

        A proxy spreads first offers over its readers; one that cannot reach the others must not
        wait for them for ever. But while it brings this host other blobs, it is only busy, and what
        it is asked for beyond its promises makes all wait longer. So it is not asked then, else for
        one chunk first, and twice as much each time while nothing else comes. Jittered.
        """
        requests = self._requests
        if requests.held(now_s) or not self._starves(STARVE_S * (1 + self._rng.random()), now_s):
            return
        wanted = requests.wanted()
        neighbours = requests.neighbours.values()
        proxies = [n for n in neighbours if n.proxy and n.slow_until_s <= now_s]
        if proxies and wanted:
            idle = [n for n in proxies if not requests.flow(n).owed_bytes]
            if not idle:
                return
            first = lowest(wanted & self._urgent() or wanted)
            self._counters.escapes += 1
            count = run_length(wanted, first, self._escape_chunks)
            self._escape_chunks = min(2 * self._escape_chunks, 2 * self._run_chunks)
            self._escaped |= ((1 << count) - 1) << first
            proxy = self._rng.choice(idle)
            self._rescued(Kind.ESCAPED, proxy.host, now_s)
            requests.ask(proxy, first, count, now_s, orders)
        elif now_s - self._looked_s >= LOOK_FURTHER_S:
            self._looked_s = now_s
            orders.append(LookFurther())
