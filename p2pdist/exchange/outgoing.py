"""Which run of a link goes next: what somebody waits for before bulk, on this link and all others.

A slice is chosen at a time, so that an urgent run waits for 64 KiB of bulk at most.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

# After the last urgent slice: what the socket buffers of bulk links hold drains meanwhile.
HOLD_S: Final = 0.25
# A slice a second keeps a receiver from taking us for stalled (32 KiB in 2 s).
TRICKLE_S: Final = 1.0


@dataclass(slots=True)
class OutgoingRun:
    """What still has to go out for one request."""

    request_id: int
    done: Callable[[int], None]
    source: int | bytes
    """An open file, or the bytes themselves."""
    bulk: bool = False
    small: bool = False
    """A whole small blob."""
    chunks: deque[tuple[int, int, int]] = field(default_factory=deque)
    offset: int = 0
    """Within the first chunk of `chunks`."""
    sent_bytes: int = 0
    cancelled: bool = False


class BulkHold:
    """Shared by all links of a node: until when none of them sends bulk but a trickle."""

    def __init__(self) -> None:
        self._until_s = -math.inf

    def urgent_sent(self, now_s: float) -> None:
        self._until_s = now_s + HOLD_S

    def wait_s(self, now_s: float) -> float:
        """Seconds until bulk may go on; 0: now."""
        return max(0.0, self._until_s - now_s)


class OutgoingRuns:
    """The runs of one link, urgent ones first, each kind in order. Cost per call O(1)."""

    def __init__(self, hold: BulkHold, runs_max: int) -> None:
        """At most `runs_max` of each kind, so that bulk never makes a link busy for others."""
        self._hold = hold
        self._runs_max = runs_max
        self._urgent: deque[OutgoingRun] = deque()
        self._bulk: deque[OutgoingRun] = deque()
        self._bulk_sent_s = -math.inf

    def __bool__(self) -> bool:
        return bool(self._urgent) or bool(self._bulk)

    def full(self, *, bulk: bool) -> bool:
        return len(self._bulk if bulk else self._urgent) >= self._runs_max

    def add(self, run: OutgoingRun) -> None:
        (self._bulk if run.bulk else self._urgent).append(run)

    def find(self, request_id: int) -> OutgoingRun | None:
        for runs in (self._urgent, self._bulk):
            for run in runs:
                if run.request_id == request_id and not run.cancelled:
                    return run
        return None

    def next(self, now_s: float) -> OutgoingRun | None:
        """The run whose next slice goes now; those that have ended are told so on the way.

        None: there is none, or only bulk that is held back for `held_s`.
        """
        _drop_ended(self._urgent)
        _drop_ended(self._bulk)
        if self._urgent:
            if not self._urgent[0].small:  # small bodies come with bulk too: they hold up nothing
                self._hold.urgent_sent(now_s)
            return self._urgent[0]
        if not self._bulk or self.held_s(now_s):
            return None
        return self._bulk[0]

    def begin(self, run: OutgoingRun, now_s: float) -> None:
        """A slice of `run` goes now, as nothing else keeps it back."""
        if run.bulk:
            self._bulk_sent_s = now_s

    def held_s(self, now_s: float) -> float:
        """Seconds for which the bulk that is here is held back; 0: it is not."""
        if not self._bulk:
            return 0.0
        return max(0.0, min(self._hold.wait_s(now_s), self._bulk_sent_s + TRICKLE_S - now_s))

    def end(self) -> None:
        """The link is closed: every run is over."""
        for runs in (self._urgent, self._bulk):
            while runs:
                run = runs.popleft()
                run.done(run.sent_bytes)


def _drop_ended(runs: deque[OutgoingRun]) -> None:
    while runs and not runs[0].chunks:
        run = runs.popleft()
        run.done(run.sent_bytes)
