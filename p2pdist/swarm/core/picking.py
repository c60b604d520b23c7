"""Who is asked before whom, for how much, and for which chunk first. No request is made here."""

from __future__ import annotations

import math
from collections.abc import Iterable
from random import Random
from typing import Final, NamedTuple

from p2pdist.model.bits import lowest
from p2pdist.model.members import Distance
from p2pdist.swarm.core.requests import Neighbour, Requests

# A run of 1 MiB keeps a 1 Gbit/s link busy for 8 ms; two of them outstanding hide the round trip.
RUN_BYTES: Final = 1 << 20
OUTSTANDING_BYTES_MAX: Final = 2 * RUN_BYTES
# How long what a neighbour was asked for may take: more only waits in its queue, and one round trip
# between continents is less.
QUEUE_S: Final = 0.1
# What is offered may lie apart: more and smaller runs, the same bytes.
RUNS_MAX: Final = 8
# In another datacenter 2 MiB come back in a round trip of 60 ms at 280 Mbit/s, whatever the link
# could do. What is asked of it grows with what it brings, until that stops growing.
FAR_QUEUE_S: Final = 0.2
FAR_RUNS_MAX: Final = 32
"""Of 1 MiB: as much as a blob may have on the way."""
# A neighbour that takes so many times as long as the best one is not asked for what is urgent.
LAGGING: Final = 2.0
LAGGING_S: Final = 0.5
"""Sooner than this nobody is too late: the reader has more to go on with."""


class Able(NamedTuple):
    """A neighbour that answers."""

    neighbour: Neighbour
    due_s: float
    """In how many seconds it would bring a chunk that it is asked for now."""
    prompt: bool
    """That is good time: no other one needs only half of it."""


class Picker:
    """Pure; chance comes through `rng`. `sequential`: the lowest chunk goes first."""

    def __init__(self, requests: Requests, rng: Random, *, sequential: bool) -> None:
        chunk = requests.geometry.chunk_size_bytes
        self.run_chunks = max(1, RUN_BYTES // chunk)
        self._outstanding_max = max(2, OUTSTANDING_BYTES_MAX // chunk)
        self._chunk_bytes = chunk
        self._requests = requests
        self._rng = rng
        self._sequential = sequential

    def room(self, neighbour: Neighbour, now_s: float) -> int:
        """How many chunks more it may be asked for."""
        requests, runs = self._requests, len(neighbour.runs)
        far = neighbour.distance > Distance.DC
        if runs >= RUNS_MAX and (not far or runs >= FAR_RUNS_MAX):
            return 0
        pace = requests.pace
        if pace is not None and pace.limited:
            return self.run_chunks  # what is outstanding is bounded by the rate
        if neighbour.proxy:  # promised to us, when it has time for us
            asked = sum(run.left.bit_count() for run in neighbour.runs.values())
            room = self._outstanding_max + self._far_chunks(neighbour, now_s) - asked
            # Whole runs: many small ones would be as many as there may be, and less.
            return max(0, room) if room >= self.run_chunks or not (far and runs) else 0
        flow = neighbour.flow(pace)
        if not flow.rated:  # it may be slow
            return 0 if runs else 1
        owed = flow.owed_bytes
        room = int((flow.ahead_bytes(QUEUE_S, now_s) - owed) // self._chunk_bytes) + 1
        return max(0 if runs else 1, min(room, self._outstanding_max - owed // self._chunk_bytes))

    def _far_chunks(self, neighbour: Neighbour, now_s: float) -> int:
        """How many more may be on the way because of a long round trip."""
        if neighbour.distance <= Distance.DC:
            return 0
        flow = self._requests.flow(neighbour)
        return int(flow.ahead_bytes(FAR_QUEUE_S, now_s) // self._chunk_bytes)

    def able(self, among: Iterable[Neighbour], now_s: float) -> list[Able]:
        """Those of them that answer."""
        requests = self._requests
        alone = len(requests.neighbours) == 1
        able = [n for n in among if alone or n.slow_until_s <= now_s]
        due = [requests.flow(n).eta_s(self._chunk_bytes, now_s) for n in able]
        late = any(due_s > LAGGING_S for due_s in due)
        limit_s = self._prompt_s(now_s) if late else LAGGING_S
        return [Able(n, due_s, due_s <= limit_s) for n, due_s in zip(able, due, strict=True)]

    def _prompt_s(self, now_s: float) -> float:
        """Who needs longer than this is late. Looks at all neighbours."""
        requests = self._requests
        alone = len(requests.neighbours) == 1
        flows = [
            requests.flow(n)
            for n in requests.neighbours.values()
            if alone or n.slow_until_s <= now_s
        ]
        rated = [flow.eta_s(self._chunk_bytes, now_s) for flow in flows if flow.rated]
        return max(LAGGING * min(rated), LAGGING_S) if rated else math.inf

    def of_use(self, among: Iterable[Neighbour], now_s: float) -> list[Neighbour]:
        """Those with room for another run, and something for it."""
        requests = self._requests
        return [n for n in among if self.room(n, now_s) and requests.of_use(n)]

    def sort(self, usable: list[Able]) -> None:
        """Nearest first, then who brings it first."""
        if len(usable) > 1:
            chance = self._rng.random
            usable.sort(key=lambda each: (each.neighbour.distance, each.due_s, chance()))

    def first_of(self, candidates: int, urgent: int) -> int:
        """The chunk to begin with; some of `candidates`, which are not empty."""
        if candidates & urgent:
            return lowest(candidates & urgent)
        if self._sequential:
            return lowest(candidates)
        pool = self._requests.offers.fewest(candidates)
        # Aligned, so that a random start does not cut the runs of what lies before it.
        start = self._rng.randrange(self._requests.count) // self.run_chunks * self.run_chunks
        after = pool >> start
        return start + lowest(after) if after else lowest(pool)


def offered_by_peers(able: Iterable[Able]) -> int:
    """What the peers among them offer."""
    bits = 0
    for each in able:
        if not each.neighbour.proxy:
            bits |= each.neighbour.offered
    return bits
