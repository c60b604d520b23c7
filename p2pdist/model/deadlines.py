"""When to look again, for who waits for several things."""

from __future__ import annotations


def soonest(*deadlines_s: float | None) -> float | None:
    """The first of those that there are; None for none. Asked for in every turn of a host."""
    first_s = None
    for due_s in deadlines_s:
        if due_s is not None and (first_s is None or due_s < first_s):
            first_s = due_s
    return first_s
