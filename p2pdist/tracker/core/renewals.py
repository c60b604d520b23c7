"""Which requests for a next certificate a tracker signs, and how many of them.

Who asks has shown a certificate of ours and has it renewed for the same role and host id: a stolen
one is renewed as well, until the host is revoked or the CA replaced.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cachetools import TLRUCache

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import HostId

SIGNED_PER_S: Final = 20.0
"""1 ms of a core each. 30,000 hosts that are all late are through in 25 minutes."""
SIGNED_AT_ONCE: Final = 40.0
BUSY_RETRY_S: Final = 300.0
HOST_PAUSE_S: Final = 600.0
HOST_PAUSE_SHARE: Final = 0.05
"""Between two certificates of one host, or that share of its life. It may have lost the first one
on its way."""
HOSTS_KEPT_MAX: Final = 65_536
EARLIEST_SHARE: Final = 0.5
"""Of its life that has to be over: who has a fresh one needs no other."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The certificate that an asker spoke TLS with; moments are Unix seconds."""

    host_id: HostId
    begins_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Refusal:
    reason: str
    retry_s: float
    """After which the same request may fare better."""


class RenewalDesk:
    """Pure. `now_s` is monotonic, `unix_s` the wall clock."""

    def __init__(self, now_s: float) -> None:
        self._bucket = TokenBucket(SIGNED_PER_S, SIGNED_AT_ONCE, now_s)
        self._now_s = now_s
        self._signing: set[HostId] = set()
        self._signed: TLRUCache[HostId, float] = TLRUCache(
            HOSTS_KEPT_MAX, ttu=lambda _, until_s, __: until_s, timer=lambda: self._now_s
        )
        """Until when each has to do with what it was given."""

    @property
    def signing(self) -> int:
        """How many are being signed."""
        return len(self._signing)

    def ask(self, shown: Shown, *, now_s: float, unix_s: float) -> Refusal | None:
        """Return why it is refused; None: sign it, and tell `done`."""
        self._now_s = now_s
        if unix_s >= shown.ends_s:
            return Refusal("the certificate has ended: issue another one", HOST_PAUSE_S)
        early_s = shown.begins_s + (shown.ends_s - shown.begins_s) * EARLIEST_SHARE - unix_s
        if early_s > 0:
            return Refusal("the certificate is good for longer than half of its life", early_s)
        if shown.host_id in self._signing or shown.host_id in self._signed:
            return Refusal("this host was given a certificate just now", _pause_s(shown))
        if self._bucket.take(1.0, now_s):
            return Refusal("the tracker signs as many as it may", BUSY_RETRY_S)
        self._signing.add(shown.host_id)
        return None

    def done(self, shown: Shown, *, signed: bool, now_s: float) -> None:
        """What `ask` allowed has come to an end."""
        self._now_s = now_s
        self._signing.discard(shown.host_id)
        if signed:
            self._signed[shown.host_id] = now_s + _pause_s(shown)


def _pause_s(shown: Shown) -> float:
    return min(HOST_PAUSE_S, HOST_PAUSE_SHARE * (shown.ends_s - shown.begins_s))
