"""When a host dials which of its trackers again, so that a fleet comes back as a stream."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Final

from p2pdist.model.backoff import Backoff

# The first try again comes at once, as a restarting tracker is back in a second; the longest
# delay is what a new tracker may take to know the active swarms.
RETRY_FIRST_S: Final = 0.2
RETRY_MAX_S: Final = 5.0
# A connection that broke sooner proves nothing: two hosts with one id would throw each other out
# five times a second.
STABLE_S: Final = 5.0
# What a tracker may ask for at most, whatever it says.
RETRY_AFTER_MAX_S: Final = 120.0
# Of the delay that the tracker named, on top of it: it names a longer one the more hosts wait, so
# the spread grows with the herd.
REFUSED_JITTER: Final = 0.25


class Redial:
    """The next dial of one host: which URL, and after how long.

    A tracker that was lost or is silent is tried again with backoff, the others in turn first; one
    that named a delay is left alone for that long, and meanwhile the others are asked.
    """

    def __init__(self, urls: Sequence[str], rng: Random) -> None:
        assert urls
        self._urls = list(urls)
        self._rng = rng
        self._backoff = Backoff(first_s=RETRY_FIRST_S, max_s=RETRY_MAX_S, rng=rng)
        self._not_before_s = dict.fromkeys(self._urls, 0.0)
        self._turn = 0

    @property
    def url(self) -> str:
        """Whom to dial now."""
        return self._urls[self._turn]

    def lost(self, up_s: float) -> None:
        """A connection that had stood for `up_s` broke: the first URL is preferred again."""
        self._turn = 0
        if up_s > STABLE_S:
            self._backoff.reset()

    def failed(self) -> None:
        """Nobody there, or nobody who answers."""
        self._turn = (self._turn + 1) % len(self._urls)

    def refused(self, after_s: float, now_s: float) -> None:
        """The tracker named a delay."""
        after_s = min(max(after_s, 0.0), RETRY_AFTER_MAX_S)
        spread = 1 + REFUSED_JITTER * self._rng.random()
        self._not_before_s[self.url] = now_s + after_s * spread
        # It lives and has a place for us in its plan; what was learnt of silence is void.
        self._backoff.reset()
        self.failed()

    def delay_s(self, now_s: float) -> float:
        """How long to wait before dialling `url`, which may change by this."""
        wait_s = self._backoff.next_delay_s()
        order = self._urls[self._turn :] + self._urls[: self._turn]
        # min takes the first of equals: the one whose turn it is.
        url = min(order, key=lambda url: max(now_s + wait_s, self._not_before_s[url]))
        self._turn = self._urls.index(url)
        return max(wait_s, self._not_before_s[url] - now_s)
