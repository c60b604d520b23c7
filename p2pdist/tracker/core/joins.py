"""Which tokens a tracker takes, each once, and how many tries it has time for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from p2pdist.model.bucket import TokenBucket
from p2pdist.model.joining import Token

CONNECTIONS_MAX: Final = 64
CONNECTIONS_OF_ONE_MAX: Final = 8
"""Of one address, or /64 of IPv6."""
CONNECTIONS_PER_S: Final = 20.0
"""A handshake and a signature are 2 ms of a core: whoever comes, that is 4 % of one."""
CONNECTIONS_AT_ONCE: Final = 40.0
SPENT_MAX: Final = 65_536
"""Each was made by who has the CA's key."""


class JoinDesk:
    """Pure. `now_s` is monotonic, `unix_s` the wall clock.

    `name`: the `HOST:PORT` that tokens name this tracker by. A token for another one is refused:
    of two that have the CA's key neither knows what the other one has spent.
    """

    def __init__(self, name: str, now_s: float) -> None:
        self._name = name
        self._bucket = TokenBucket(CONNECTIONS_PER_S, CONNECTIONS_AT_ONCE, now_s)
        self._open: Counter[str] = Counter()
        self._spent: dict[bytes, int] = {}
        """Until when each would have been good."""

    def restore(self, spent: Iterable[tuple[bytes, int]]) -> None:
        """Take in what was spent before the start."""
        self._spent.update(spent)

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

    def spend(self, token: Token, unix_s: float) -> str:
        """Take a token of our CA, or return why not. It is spent from here on, whatever follows."""
        if token.tracker != self._name:
            return f"the token is for the tracker {token.tracker}, and this one is {self._name}"
        if token.ends_s <= unix_s:
            return "the token has ended: make another one"
        if token.id in self._spent:
            return "the token was used before: each is good for one certificate"
        self.forget(unix_s)
        if len(self._spent) >= SPENT_MAX:
            return "too many tokens were used of late"
        self._spent[token.id] = token.ends_s
        return ""

    def forget(self, unix_s: float) -> list[bytes]:
        """Drop what has ended, which is refused for that; return what is to be stored no more."""
        ended = [each for each, ends_s in self._spent.items() if ends_s <= unix_s]
        for each in ended:
            del self._spent[each]
        return ended
