"""A registry beyond the fleet, and one body of it that is read."""

from __future__ import annotations

from bench.sim.wire import Card, Lane
from p2pdist.oci.names import ImageName

NAME = ImageName("registry.example", "image")


class Upstream:
    """Sends bodies at a rate that all who read share; it always has what is asked for."""

    def __init__(self, bytes_per_s: float, latency_s: float) -> None:
        self.lane = Lane(bytes_per_s)
        self.latency_s = latency_s

    def send(self, nbytes: int, card: Card, now_s: float) -> float:
        """When the next bytes of an open body have come in at `card`."""
        begin_s = max(now_s, self.lane.free_s)
        left_s = self.lane.take(nbytes, begin_s, begin_s)
        return card.down.take(nbytes, begin_s, left_s)
