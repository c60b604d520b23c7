"""Bounds of histograms of seconds, for all that measure them."""

from __future__ import annotations

import bisect
from typing import Final

# From a warm manifest to the largest layer over a slow link.
DURATION_BOUNDS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 180, 600)
"""Upper ends, included; what is longer belongs to one more bucket."""


def bucket_of(seconds: float) -> int:
    return bisect.bisect_left(DURATION_BOUNDS_S, seconds)
