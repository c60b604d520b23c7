"""Which tokens a tracker takes, each as often as it says, and how many tries it has time for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import HostId
from p2pdist.model.joining import Token

CONNECTIONS_MAX: Final = 64
CONNECTIONS_OF_ONE_MAX: Final = 8
"""Of one address, or /64 of IPv6."""
CONNECTIONS_PER_S: Final = 20.0
"""A handshake and a signature are 2 ms of a core: whoever comes, that is 4 % of one."""
CONNECTIONS_AT_ONCE: Final = 40.0
USES_KEPT_MAX: Final = 65_536
"""Each of a token that was made by who has the CA's key."""


@dataclass(frozen=True, slots=True)
class Use:
    """One host that a token let in."""

    token: bytes
    """Its id."""
    key: bytes
    """What tells the host's key from all others. Empty: a tracker before this one did not say."""
    host_id: HostId
    ends_s: int
    """Until when the token would be good."""


class JoinDesk:
    """Pure. `now_s` is monotonic, `unix_s` the wall clock.

    `name`: the `HOST:PORT` that tokens name this tracker by. A token for another one is refused:
    of two that have the CA's key neither knows what the other one has spent.
    """

    def __init__(self, name: str, now_s: float) -> None:
        self._name = name
        self._bucket = TokenBucket(CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE, now_s)
        self._open: Counter[str] = Counter()
        self._uses: dict[bytes, dict[bytes, Use]] = {}
        """By token and key."""
        self._kept = 0

    def restore(self, uses: Iterable[Use]) -> None:
        """Take in what was used before the start."""
        for use in uses:
            self._keep(use)

    # --- connections ----------------------------------------------------------------------------

    def arrive(self, network: str, now_s: float) -> bool:
        """Whether there is room for one more connection; `leave` is to follow then."""
        full = self._open.total() >= CONNECTIONS_MAX
        if full or self._open[network] >= CONNECTIONS_OF_ONE_MAX:
            return False
        if self._bucket.take(1.0, now_s):
            return False
        self._open[network] += 1
        return True

    def leave(self, network: str) -> None:
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]

    # --- tokens ---------------------------------------------------------------------------------

    def use(self, token: Token, key: bytes, fresh: HostId, unix_s: float) -> Use | str:
        """Take a token of our CA for the host that has `key`, or return why not.

        It is used from here on, whatever follows. Who asks again with the same key, as it heard no
        answer, is the same host and takes nothing more. `fresh`: the host id of a new host, unless
        the token names one: nobody chooses an id, which could be another host's.
        """
        if token.tracker != self._name:
            return f"the token is for the tracker {token.tracker}, and this one is {self._name}"
        if token.ends_s <= unix_s:
            return "the token has ended: make another one"
        if (before := self._of(token.id).get(key)) is not None:
            return before
        if len(self._of(token.id)) >= token.uses:
            return _used_up(token.uses)
        self.forget(unix_s)
        if self._kept >= USES_KEPT_MAX:
            return "too many tokens were used of late"
        made = Use(token.id, key, HostId(token.host_id or fresh), token.ends_s)
        self._keep(made)
        return made

    def used(self, token: Token) -> int:
        """How many hosts a token has let in."""
        return len(self._of(token.id))

    def forget(self, unix_s: float) -> list[bytes]:
        """Drop what has ended, which is refused for that; return what is to be stored no more."""
        ended = [
            token
            for token, uses in self._uses.items()
            if all(use.ends_s <= unix_s for use in uses.values())
        ]
        for token in ended:
            self._kept -= len(self._uses.pop(token))
        return ended

    def _of(self, token: bytes) -> dict[bytes, Use]:
        return self._uses.get(token, {})

    def _keep(self, use: Use) -> None:
        uses = self._uses.setdefault(use.token, {})
        self._kept += use.key not in uses
        uses[use.key] = use


def _used_up(uses: int) -> str:
    if uses == 1:
        return "the token was used before: it is good for one certificate"
    return f"the token was used before, by {uses} hosts: it is good for no more"
