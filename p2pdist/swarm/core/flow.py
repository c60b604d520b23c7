"""How fast a neighbour brings what it is asked for, all blobs together.

A rate is measured only while something is asked of the neighbour, so it is what it can do for us,
not what we made of it. What comes at the link is counted whole; of what was asked, whole chunks.
"""

from __future__ import annotations

import math
from typing import Final

# A rate is a mean over about so long: three chunks of 256 KiB at 20 Mbit/s.
MEMORY_S: Final = 0.3
# Bytes come in bursts of a few milliseconds (token buckets, busy hosts): a sample spans several.
SAMPLE_S: Final = 0.05
# Fewer bytes than this are no progress: a source of 1 B/s is a stalled one.
PROGRESS_BYTES: Final = 32 * 1024


class Flow:
    """Pure. One per neighbour, shared by the fetches of all blobs that ask it."""

    __slots__ = (
        "_active_s",
        "_heard",
        "_owed",
        "_rate",
        "_sampled",
        "_sampled_s",
        "_since_chunk",
        "_unmarked",
        "_weight",
        "progress_s",
    )

    def __init__(self, heard_bytes: int = 0) -> None:
        """`heard_bytes`: what came from it until now, as in `heard`."""
        self.progress_s = -math.inf
        """When bytes worth the name last came, or were asked for while nothing was."""
        self._rate: float | None = None
        self._weight = 0.0
        """Of all samples until now, at most 1: what was seen for a moment only is a guess."""
        self._owed = 0
        self._heard = heard_bytes
        self._since_chunk = 0
        self._sampled = 0
        self._sampled_s = 0.0  # since when, idle time left out
        self._active_s = 0.0
        self._unmarked = 0

    @property
    def rated(self) -> bool:
        return self._rate is not None

    @property
    def owed_bytes(self) -> int:
        """What it was asked for and what did not come, but for parts of a chunk."""
        return max(0, self._owed - self._since_chunk)

    def asked(self, nbytes: int, now_s: float) -> None:
        if not self._owed:
            self._sampled_s += now_s - self._active_s  # what was idle is no part of a sample
            self._since_chunk = 0
            self.progress_s = now_s
        self._owed += nbytes
        self._active_s = now_s

    def heard(self, total_bytes: int, now_s: float) -> None:
        """`total_bytes` of payload came from it since its link is up."""
        fresh, self._heard = total_bytes - self._heard, total_bytes
        if not self._owed:
            return  # what still came of something that was taken back
        self._active_s = now_s
        self._sampled += fresh
        self._since_chunk += fresh
        self._unmarked += fresh
        if self._unmarked >= PROGRESS_BYTES:
            self._unmarked, self.progress_s = 0, now_s
        if now_s - self._sampled_s >= SAMPLE_S:
            self._fold(now_s)

    def came(self, nbytes: int, now_s: float) -> None:
        """A whole chunk of `nbytes` that it was asked for is here."""
        self._owed -= nbytes
        self._since_chunk = 0
        self._active_s = now_s
        self._unmarked, self.progress_s = 0, now_s
        if self._rate is None:
            self._fold(now_s)  # a first idea, however short the sample is

    def taken_back(self, nbytes: int) -> None:
        """It need not bring these any more, or will not."""
        self._owed -= nbytes
        self._since_chunk = 0

    def rate(self, now_s: float) -> float | None:
        """Bytes per second that it can be expected to bring now; None: it was not seen yet."""
        if self._rate is None or not self._owed:
            return self._rate
        # What does not come for long cannot be as fast as it was.
        silent_s = now_s - self._sampled_s
        if silent_s < 2 * SAMPLE_S:
            return self._rate
        return min(self._rate, (self._sampled + PROGRESS_BYTES) / silent_s)

    def ahead_bytes(self, seconds: float, now_s: float) -> float:
        """What may be asked for at a time: what it brings in `seconds`, and less as long as it was
        seen for a moment only. Token buckets, of clouds as of our lab, let a first burst through
        at any speed: 512 KiB at once from a host of 2 Mbit/s."""
        return (self.rate(now_s) or 0.0) * seconds * self._weight

    def eta_s(self, nbytes: int, now_s: float) -> float:
        """Seconds until `nbytes` more would be here, after all that it was asked for already."""
        rate = self.rate(now_s)
        if rate is None:  # it will take as long again as it took until now
            return now_s - self.progress_s if self._owed else 0.0
        return (self.owed_bytes + nbytes) / max(rate, 1.0)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert self._owed >= 0, "more came, or was taken back, than was asked for"
        assert 0 <= self._weight <= 1
        assert (self._rate is None) is (self._weight == 0)
        assert self._rate is None or self._rate >= 0
        assert self._sampled >= 0
        assert self._since_chunk >= 0
        assert 0 <= self._unmarked < PROGRESS_BYTES

    def _fold(self, now_s: float) -> None:
        span_s = now_s - self._sampled_s
        if span_s <= 0 or (self._rate is None and not self._sampled):
            return
        sample = self._sampled / span_s
        share = 1 - math.exp(-span_s / MEMORY_S)
        self._weight += (1 - self._weight) * share
        # The mean over all samples, and not over the first one and the rest, however short it was.
        before = self._rate or 0.0
        self._rate = before + (sample - before) * share / self._weight
        self._sampled, self._sampled_s = 0, now_s


class Flows:
    """Both kinds of traffic of one neighbour: it sends bulk only while it has nothing urgent."""

    __slots__ = ("bulk", "urgent")

    def __init__(self, heard_bytes: int = 0) -> None:
        self.urgent, self.bulk = Flow(heard_bytes), Flow(heard_bytes)

    def heard(self, total_bytes: int, now_s: float) -> None:
        self.urgent.heard(total_bytes, now_s)
        self.bulk.heard(total_bytes, now_s)

    def validate(self) -> None:
        self.urgent.validate()
        self.bulk.validate()
