"""A daemon's `HealthBook` on real clocks: looks, logs, exports."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from p2pdist.model.clocks import SKEW_OVER_S, SKEW_TOLERATED_S, ClockBook, Skew, sober_unix_s
from p2pdist.model.health import HealthBook, Reason, Trouble
from p2pdist.process import clock, logs
from p2pdist.process.metrics import Sample

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
# Whose clocks are compared with ours.
TRACKER: Final = "tracker"
PROXY: Final = "proxy"
DESCRIPTORS_FEW: Final = 0.9
"""Beyond this share of the limit there is room for one burst of connections, hardly more."""


class Health:
    """One of a daemon; everything that can go wrong with P2P tells it, on the event loop."""

    def __init__(self, *, unix_s: Callable[[], float] = clock.unix_s) -> None:
        """`unix_s`: the wall clock of this host."""
        self.unix_s = unix_s
        self.book = HealthBook()
        self.clocks = ClockBook()
        self.conditions: Callable[[], Mapping[Reason, str]] = dict
        """What holds at this moment, beside clocks and descriptors; set by who can tell."""

    # --- what others tell -----------------------------------------------------------------------

    def happened(self, reason: Reason, party: str, detail: str) -> None:
        self.book.happened(reason, party, detail, time.monotonic())

    def mended(self, reason: Reason, party: str) -> None:
        self.book.mended(reason, party)

    def heard_clock(
        self, kind: str, party: str, unix_ms: int, *, asked_s: float, answered_s: float
    ) -> None:
        """`party` told its wall clock; the moments are `time.monotonic()`."""
        self.clocks.heard(kind, party, unix_ms, asked_s=asked_s, answered_s=answered_s)

    @property
    def sober_unix_s(self) -> float:
        """The wall clock by which what others signed expires."""
        return sober_unix_s(self.unix_s(), self._skews(time.monotonic()))

    @property
    def unix_ms(self) -> int:
        """What this host tells others of its clock."""
        return max(0, round(self.unix_s() * 1000))

    # --- looking --------------------------------------------------------------------------------

    def look(self, now_s: float | None = None) -> list[Trouble]:
        """Look at everything; log what begins and ends; return what holds."""
        now_s = time.monotonic() if now_s is None else now_s
        conditions = {**self.conditions(), **self._clock_condition(now_s)}
        if (used := descriptors_used()) is not None and used > DESCRIPTORS_FEW:
            conditions[Reason.FEW_DESCRIPTORS] = f"{used:.0%} of the open files that are allowed"
        for word in self.book.look(conditions, now_s):
            trouble = word.trouble
            fields: dict[str, Any] = {"reason": trouble.reason.value, "detail": trouble.detail}
            if word.over:
                fields["lasted_s"] = round(now_s - trouble.since_s, 1)
                logs.event(log, logging.INFO, "degraded.over", **fields)
            else:
                logs.event(log, logging.WARNING, "degraded.began", **fields, fix=trouble.fix)
        return self.book.troubles()

    def _clock_condition(self, now_s: float) -> dict[Reason, str]:
        tolerated_s = SKEW_OVER_S if self.book.active(Reason.CLOCK_SKEW) else SKEW_TOLERATED_S
        apart = [skew for skew in self._skews(now_s) if skew.beyond(tolerated_s)]
        return {Reason.CLOCK_SKEW: "; ".join(map(str, apart))} if apart else {}

    def _skews(self, now_s: float) -> list[Skew]:
        return self.clocks.skews(self.unix_s(), now_s)

    async def watch(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    # --- telling --------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The entries of `/readyz`."""
        return [trouble.reason.value for trouble in self.look()]

    def status(self) -> list[dict[str, Any]]:
        """For `/api/v1/status`."""
        now_s = time.monotonic()
        return [
            {
                "reason": trouble.reason.value,
                "detail": trouble.detail,
                "fix": trouble.fix,
                "for_s": round(now_s - trouble.since_s, 1),
            }
            for trouble in self.look(now_s)
        ]

    def samples(self) -> Iterable[Sample]:
        active = {trouble.reason for trouble in self.book.troubles()}
        text = "1 while this keeps the daemon from working as it should."
        for reason in Reason:
            labels = {"reason": reason.value}
            yield Sample("p2pdist_degraded", "gauge", text, labels, float(reason in active))
        farthest: dict[str, Skew] = {}
        for skew in self._skews(time.monotonic()):
            known = farthest.setdefault(skew.kind, skew)
            if abs(skew.ahead_s) > abs(known.ahead_s):
                farthest[skew.kind] = skew
        text = "How far the farthest clock is ahead of this host's; negative: behind."
        for kind, skew in sorted(farthest.items()):
            yield Sample("p2pdist_clock_skew_seconds", "gauge", text, {"to": kind}, skew.ahead_s)


def descriptors_used() -> float | None:
    """Which share of the descriptors is in use; None where the kernel does not count them."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        used = os.stat("/proc/self/fd").st_size  # the number of them since Linux 6.2, before: 0
    except OSError:
        return None
    return used / soft if used and soft not in (0, resource.RLIM_INFINITY) else None
