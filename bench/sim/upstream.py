"""A registry beyond the fleet, the bodies of it that are read, and what goes wrong with them."""

from __future__ import annotations

from random import Random
from typing import Final

from bench.sim.scenario import UpstreamFaults
from bench.sim.wire import Card, Lane
from p2pdist.errors import UpstreamError
from p2pdist.oci.names import ImageName

NAME = ImageName("registry.example", "image")
# As `registry/reading/body.py` has it.
READ_IDLE_S: Final = 10.0
SLOW: Final = 10
# What it answers in place of a body: it cannot, wants to be left alone, is not there, or has none.
STATUSES: Final = (503, 429, 0, 404)


class Upstream:
    """Sends bodies at a rate that all who read share; it has what is asked for, but for faults."""

    def __init__(
        self,
        bytes_per_s: float,
        latency_s: float,
        faults: UpstreamFaults | None = None,
        rng: Random | None = None,
    ) -> None:
        """`rng`: which bodies have which fault."""
        self.lane = Lane(bytes_per_s)
        self.latency_s = latency_s
        self.faulty = 0
        """Bodies that had one, and errors in place of one."""
        self._faults = faults or UpstreamFaults()
        self._rng = rng or Random(0)

    def open(self, size_bytes: int, start: int, now_s: float) -> Body:
        """The bytes of a blob from `start` on. Raises UpstreamError."""
        faults, rng = self._faults, self._rng
        if now_s >= faults.end_s:
            return Body(self.lane)
        if rng.random() < faults.errors:
            self.faulty += 1
            status = rng.choice(STATUSES)
            raise UpstreamError(f"it answered {status}", status=status)
        body = Body(self.lane, skip=start if faults.no_ranges else 0)
        left = size_bytes - start
        if rng.random() < faults.slow:
            body.pace = Lane(self.lane.bytes_per_s / SLOW)
        if rng.random() < faults.cut:
            body.breaks(rng.randrange(left), 0.0, "the body broke off")
        elif rng.random() < faults.stalled:
            body.breaks(rng.randrange(left), READ_IDLE_S, "the body stood still")
        self.faulty += body.pace is not None or body.error is not None
        return body


class Body:
    """One that is open."""

    def __init__(self, lane: Lane, skip: int = 0) -> None:
        """`skip`: bytes that come first and were not asked for."""
        self.error: UpstreamError | None = None
        """What it ends in."""
        self.pace: Lane | None = None
        """Its own, where it is slow."""
        self._lane = lane
        self._skip = skip
        self._left = 0
        self._silence_s = 0.0

    def breaks(self, after_bytes: int, silence_s: float, why: str) -> None:
        """It does, after so many bytes that were asked for."""
        self._left, self._silence_s, self.error = after_bytes, silence_s, UpstreamError(why)

    def send(self, nbytes: int, card: Card, now_s: float) -> tuple[float, UpstreamError | None]:
        """When the next bytes have come in at `card`, or with what it ended before they had."""
        ends = self.error is not None and nbytes > self._left
        sent = self._left if ends else nbytes
        self._left -= sent
        come_s = self._come_s(self._skip + sent, card, now_s)
        self._skip = 0
        return (come_s + self._silence_s, self.error) if ends else (come_s, None)

    def _come_s(self, nbytes: int, card: Card, now_s: float) -> float:
        begin_s = max(now_s, self._lane.free_s)
        left_s = self._lane.take(nbytes, begin_s, begin_s)
        if self.pace is not None:
            left_s = max(left_s, self.pace.take(nbytes, now_s, now_s))
        return card.down.take(nbytes, begin_s, left_s)
