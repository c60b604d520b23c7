"""Who is greeted, who waits, who comes back later: so that a storm is served and not fought.

A tracker that comes back after a fall is dialled by all hosts at once, and each of them gives up
after `CONNECT_S`. Served in the order of their coming, every host in a long queue has given up by
the time it is greeted, dials again, and the queue never ends: 338 of 5,000 hosts were back after
188 s. So nobody waits here for longer than a host does:

| connection | then |
| --- | --- |
| those before it are done within `WAIT_MAX_S` | waits to be greeted |
| they are not, or too many of its address are here | is told when to come back, unread |
| waits, but for longer than `STALE_S` (the tracker got slower) | is dropped, unread |

Those who are sent away get times that follow each other as closely as hosts are taken in, by what
a host was seen to take: the more were sent away, the later the next one is asked back.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final, Generic, TypeVar

from p2pdist.model.control_wire import CONNECT_S

T = TypeVar("T")

# What is left of a host's patience is for the handshake that is still to come, at the same pace.
WAIT_MAX_S: Final = CONNECT_S * 0.4
STALE_S: Final = CONNECT_S * 0.6
# Greeted and not done: each may have the other end's round trip to wait for.
HANDSHAKES_MAX: Final = 1024
WAITING_MAX: Final = 8192
# An honest host is done within its round trip: at 100 ms a whole network behind one address still
# gets 2,560 of its hosts in each second. Without it one address keeps all places with silence.
PER_ADDRESS_MAX: Final = 256
RETRY_AFTER_MIN_S: Final = 1.0
RETRY_AFTER_MAX_S: Final = 90.0
# Between two hosts that are asked back: some more than one takes, for those who come unasked.
HEADROOM: Final = 1.25

# Seconds from one host taken in to the next: before any was seen, and what is believed at most.
PACE_FIRST_S: Final = 0.001
PACE_MIN_S: Final = 0.00005
PACE_MAX_S: Final = 0.1
# Over how many hosts the pace is a mean: a core that is taken away shows within a second.
PACE_HOSTS: Final = 128


class Intake(Generic[T]):
    """The queue before the handshake. `T` is whatever the shell knows a connection by.

    `who` is the address that it comes from.
    """

    def __init__(self, *, handshakes_max: int = HANDSHAKES_MAX) -> None:
        self._handshakes_max = handshakes_max
        self._waiting: deque[tuple[float, T, str]] = deque()
        self._here: Counter[str] = Counter()  # waiting or greeted, by address
        self._greeted = 0
        self._pace_s = PACE_FIRST_S
        self._last_done_s: float | None = None
        """When the last one was done, if others have been waiting ever since."""
        self._next_return_s = 0.0
        self.sent_away_total = 0
        self.dropped_total = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def greeted(self) -> int:
        return self._greeted

    @property
    def pace_s(self) -> float:
        return self._pace_s

    def arrive(self, connection: T, who: str, now_s: float) -> float | None:
        """Queue it; or return after how many seconds it is to come back."""
        before = len(self._waiting) + self._greeted
        late = before * self._pace_s > WAIT_MAX_S or len(self._waiting) >= WAITING_MAX
        if late or self._here[who] >= PER_ADDRESS_MAX:
            self.sent_away_total += 1
            return self._return_s(now_s) - now_s
        self._waiting.append((now_s, connection, who))
        self._here[who] += 1
        return None

    def _return_s(self, now_s: float) -> float:
        earliest_s, latest_s = now_s + RETRY_AFTER_MIN_S, now_s + RETRY_AFTER_MAX_S
        at_s = min(max(self._next_return_s, earliest_s), latest_s)
        self._next_return_s = at_s + HEADROOM * self._pace_s
        return at_s

    def drop_stale(self, now_s: float) -> list[T]:
        """Take out those who have waited too long to be still there."""
        stale = []
        while self._waiting and now_s - self._waiting[0][0] > STALE_S:
            _, connection, who = self._waiting.popleft()
            self._gone(who)
            stale.append(connection)
        if not self._here:
            self._last_done_s = None  # nobody waits: what comes next is not the pace
        self.dropped_total += len(stale)
        return stale

    def _gone(self, who: str) -> None:
        self._here[who] -= 1
        if not self._here[who]:
            del self._here[who]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert 0 <= self._greeted <= self._handshakes_max
        assert len(self._waiting) <= WAITING_MAX
        waiting = Counter(who for _, _, who in self._waiting)
        assert waiting <= self._here
        assert self._here.total() == len(self._waiting) + self._greeted
        assert all(0 < here <= PER_ADDRESS_MAX for here in self._here.values())
        moments = [came_s for came_s, _, _ in self._waiting]
        assert moments == sorted(moments)
        assert PACE_MIN_S <= self._pace_s <= PACE_MAX_S
        assert self._here or self._last_done_s is None, "idle time would count as a slow pace"

    def greet(self, most: int) -> list[tuple[T, str]]:
        """Take out up to `most` whose handshake begins now, each with its address; each is `done`
        later, once."""
        count = min(most, len(self._waiting), self._handshakes_max - self._greeted)
        self._greeted += count
        return [self._waiting.popleft()[1:] for _ in range(count)]

    def done(self, who: str, now_s: float, *, silent: bool = False) -> None:
        """A handshake ended, well or not; what it took the tracker is the pace.

        `silent`: the other end said nothing for too long, which tells nothing of the tracker.
        """
        self._greeted -= 1
        self._gone(who)
        if silent:
            self._last_done_s = None
            return
        if self._last_done_s is not None:
            gap_s = now_s - self._last_done_s
            self._pace_s += (gap_s - self._pace_s) / PACE_HOSTS
            self._pace_s = min(max(self._pace_s, PACE_MIN_S), PACE_MAX_S)
        busy = len(self._waiting) + self._greeted > 0
        self._last_done_s = now_s if busy else None
