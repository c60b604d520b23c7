"""What the `/v2/` surface answered: how many requests, how they ended, how long they took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Final, get_args

from p2pdist.process.metrics import Durations, Sample
from p2pdist.registry.serving.delivered import DeliveredBytes
from p2pdist.registry.serving.pull import Outcome, PullKind, PullRecord

KINDS: Final[tuple[PullKind, ...]] = get_args(PullKind)
ALWAYS: Final[tuple[PullKind, ...]] = ("manifest", "blob")
"""Most hosts read no image in parts, and a quantile of nothing is a gap on a dashboard."""
OUTCOMES: Final[tuple[Outcome, ...]] = get_args(Outcome)


class PullMetrics:
    """Hears of each request that is over.

    A HEAD, and a client that has what it asks about, are no pulls: they end in a millisecond and
    would hide what pulls take.
    """

    def __init__(self, registries: Collection[str]) -> None:
        """`registries`: as `DeliveredBytes`'."""
        self._delivered = DeliveredBytes(registries)
        self.durations = Durations(
            "p2pdist_pull_duration_seconds",
            "Manifest and blob requests from the request to the last byte sent.",
            ("kind", "outcome"),
            [(kind, "served") for kind in ALWAYS],
        )
        self.waits = Durations(
            "p2pdist_pull_longest_wait_seconds",
            "The longest silence within a request, by kind.",
            ("kind",),
            [(kind,) for kind in ALWAYS],
        )
        self._ended: Counter[tuple[PullKind, Outcome]] = Counter()

    def note(self, record: PullRecord) -> None:
        if record.head or record.status == 304:
            return
        self._delivered.note(record)
        self._ended[record.kind, record.outcome] += 1
        self.durations.observe((record.kind, record.outcome), record.duration_s)
        self.waits.observe((record.kind,), record.slowest_wait_s)

    def all(self) -> tuple[Durations, ...]:
        return self.durations, self.waits

    def samples(self) -> Iterator[Sample]:
        """All outcomes from the start: a counter that appears with its first event hides it from
        every rate."""
        for kind in KINDS:
            for outcome in OUTCOMES:
                yield Sample(
                    "p2pdist_pulls_total", "counter", "Manifest and blob requests by outcome.",
                    {"kind": kind, "outcome": outcome}, self._ended[kind, outcome],
                )  # fmt: skip
        yield from self._delivered.samples()
