"""The only wall clock: for records that outlive the process. Deadlines use the loop's clock."""

from __future__ import annotations

import time


def unix_s() -> float:
    """Seconds since 1970-01-01 UTC."""
    return time.time()  # noqa: TID251  # this is the place that the ban points to


def unix_ns() -> int:
    """The same in nanoseconds."""
    return time.time_ns()
