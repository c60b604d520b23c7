"""What may be concluded from the wall clock of another host: little, but how far off it is.

Ages are measured on the receiver's monotonic clock, from when it heard a thing. Stamps order what
one signer says, and expire it with a tolerance, on a clock that is not ahead of all others. How far
the clocks of others are from ours is measured and said: a reading ties another host's wall clock to
our monotonic one, so that a clock of ours that is set right is seen at once, without asking again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

CLOCK_TOLERANCE_S: Final = 300
"""Hosts with a time service are milliseconds apart, those without one drift by a second a day. What
is off by more was never set: as Kerberos has it (RFC 4120, section 1.6: "typically 5 minutes")."""

UNIX_MS_MAX: Final = 1 << 53
"""Beyond any date, and exact as a float."""

SKEW_TOLERATED_S: Final = 30.0
"""A tenth of what statements are given: said before anything is refused for it, and a hundred times
what any time service leaves."""
SKEW_OVER_S: Final = 20.0
"""What was above the one is over below the other."""
READING_KEPT_S: Final = 600.0
"""Monotonic clocks drift, and stand still while a machine is suspended."""
PARTIES_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Skew:
    """`ahead_s`: how far the other clock is ahead of ours; negative: behind. The truth is within
    `error_s` of it: half of the time that the answer took."""

    kind: str
    party: str
    ahead_s: float
    error_s: float

    def beyond(self, tolerated_s: float) -> bool:
        """Further apart than that, whatever the error."""
        return abs(self.ahead_s) - self.error_s > tolerated_s

    def __str__(self) -> str:
        word = "ahead of" if self.ahead_s < 0 else "behind"
        return (
            f"this clock is {abs(self.ahead_s):.0f} s {word} {self.party} (±{self.error_s:.1f} s)"
        )


@dataclass(frozen=True, slots=True)
class _Reading:
    kind: str
    offset_s: float
    """Their wall clock minus our monotonic one."""
    error_s: float
    heard_s: float


class ClockBook:
    """Pure. The newest reading of each party; when full, the oldest is forgotten."""

    def __init__(self) -> None:
        self._readings: dict[str, _Reading] = {}

    def heard(
        self, kind: str, party: str, unix_ms: int, *, asked_s: float, answered_s: float
    ) -> None:
        """`party`, a `tracker` or `proxy`, told its wall clock between the two moments of our
        monotonic one; 0: it told none, as older versions do."""
        self._readings.pop(party, None)
        if unix_ms == 0:
            return
        middle_s, error_s = (asked_s + answered_s) / 2, (answered_s - asked_s) / 2
        self._readings[party] = _Reading(kind, unix_ms / 1000 - middle_s, error_s, answered_s)
        while len(self._readings) > PARTIES_MAX:
            del self._readings[next(iter(self._readings))]

    def skews(self, unix_s: float, now_s: float) -> list[Skew]:
        """How far each of them is from our wall clock, `unix_s`, at the monotonic `now_s`."""
        return [
            Skew(reading.kind, party, reading.offset_s + now_s - unix_s, reading.error_s)
            for party, reading in list(self._readings.items())  # metrics are read in a thread
            if now_s - reading.heard_s < READING_KEPT_S
        ]


def sober_unix_s(unix_s: float, skews: Iterable[Skew]) -> float:
    """Our wall clock, set back where every clock that we know is behind it; never set forward.

    For what expires: a host whose clock is days ahead would take all that is said to it for ended.
    One that agrees with ours, or is ahead of it, is enough to leave it as it is.
    """
    closest = max(skews, key=lambda skew: skew.ahead_s, default=None)
    if closest is None or closest.ahead_s >= 0 or not closest.beyond(SKEW_TOLERATED_S):
        return unix_s
    return unix_s + closest.ahead_s
