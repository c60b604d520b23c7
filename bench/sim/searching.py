"""A simulated peer whose reader starves has proxies look for the blob, as `swarm/sourcing.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from bench.sim.clock import Clock, Timer
from bench.sim.hosts import SimHost
from p2pdist.model.ids import Digest, HostId

# As `swarm/reader.py` and `swarm/sourcing.py` have them.
STARVING_S: Final = 1.0
TURN_S: Final = 0.5
PAUSE_FIRST_S: Final = 0.5
PAUSE_MAX_S: Final = 8.0


class Search:
    """Of one reader, from when it begins to `end`: the owner is asked first, then the others."""

    def __init__(
        self,
        clock: Clock,
        host: SimHost,
        digest: Digest,
        proxies: Callable[[], Sequence[SimHost]],
        round_trip_s: float,
    ) -> None:
        """`proxies`: those of its datacenter that answer, in the order in which they own it."""
        self._clock = clock
        self._host = host
        self._digest = digest
        self._proxies = proxies
        self._round_trip_s = round_trip_s
        self._tried: set[HostId] = set()
        self._not_before_s = 0.0
        self._pause_s = PAUSE_FIRST_S
        self._timer: Timer | None = clock.after(STARVING_S, self._turn)

    def end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        blob, now_s = self._host.core.blobs[self._digest], self._clock.now_s
        if not self._host.alive:
            return
        idle_s = blob.idle_s(now_s)
        if idle_s > STARVING_S and now_s >= self._not_before_s:
            self._not_before_s = now_s + self._pause_s
            self._pause_s = min(2 * self._pause_s, PAUSE_MAX_S)
            self._look()
        self._timer = self._clock.after(max(TURN_S, STARVING_S - idle_s), self._turn)

    def _look(self) -> None:
        proxies = self._proxies()
        fresh = [proxy for proxy in proxies if proxy.host_id not in self._tried]
        if not fresh:
            self._tried.clear()
        if (proxy := next(iter(fresh or proxies), None)) is not None:
            self._tried.add(proxy.host_id)
            self._clock.after(self._round_trip_s, partial(self._introduced, proxy))

    def _introduced(self, proxy: SimHost) -> None:
        """It was told in which repository the blob lies; then it is asked for it."""
        if not (proxy.alive and self._host.alive):
            return
        proxy.on_wanted(self._digest)
        self._host.look_at(self._digest, proxy.host_id)
