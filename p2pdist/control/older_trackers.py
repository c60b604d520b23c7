"""What a tracker of before private digests can be told: it ends the connection over such a key."""

from __future__ import annotations

from p2pdist.model.control import ORIGIN, Announce, Join, LeaseAsk, LeaseEnd, Leave, ToTracker
from p2pdist.model.ids import PRIVATE


def without_private(message: ToTracker) -> ToTracker | None:
    """Return what is left of `message` without private digests; None: nothing. What is asked for
    then has no answer, as with a tracker that is away."""
    match message:
        case Announce(deltas, full):
            public = [delta for delta in deltas if not _is_private(delta.key)]
            return Announce(public, full) if public or full else None
        case Join() | Leave() | LeaseAsk() | LeaseEnd():
            return None if _is_private(message.key) else message
        case _:
            return message


def _is_private(key: str) -> bool:
    return key.removeprefix(ORIGIN).startswith(f"{PRIVATE}:")
