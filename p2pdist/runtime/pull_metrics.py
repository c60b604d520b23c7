"""Histograms of what the `/v2/` surface answered."""

from __future__ import annotations

from p2pdist.runtime.metrics import Durations
from p2pdist.runtime.registry_pull import PullRecord


class PullMetrics:
    """Hears of each request that is over; cut and refused ones have their own outcome."""

    def __init__(self) -> None:
        self.durations = Durations(
            "p2pdist_pull_duration_seconds",
            "Manifest and blob requests from first byte asked to last byte sent.",
            "kind",
            ("manifest", "blob"),
        )
        self.waits = Durations(
            "p2pdist_pull_longest_wait_seconds",
            "The longest silence within a request, by kind.",
            "kind",
            ("manifest", "blob"),
        )

    def note(self, record: PullRecord) -> None:
        self.durations.observe(record.kind, record.duration_s)
        self.waits.observe(record.kind, record.slowest_wait_s)

    def all(self) -> tuple[Durations, ...]:
        return self.durations, self.waits
