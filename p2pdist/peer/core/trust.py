"""Who may still serve us: strikes, and bans that expire."""

from __future__ import annotations

from typing import Final

from p2pdist.model.ids import HostId

STRIKES_MAX: Final = 3  # "banned after at most 3 wrong chunks"
BAN_S: Final = 600.0
HOSTS_MAX: Final = 4096


class TrustBook:
    """Counts wrong answers per host; pure. When full, the oldest entry is forgotten."""

    def __init__(self) -> None:
        self._strikes: dict[HostId, int] = {}
        self._banned_until_s: dict[HostId, float] = {}
        self.bans_total = 0

    def strike(self, host: HostId, now_s: float, weight: int = 1) -> bool:
        """Note a wrong answer; return whether `host` is banned by it.

        What was on its way from a host that is banned already counts no more.
        """
        if self.banned(host, now_s):
            return False
        strikes = self._strikes.pop(host, 0) + weight
        self._strikes[host] = strikes
        _bound(self._strikes)
        if strikes < STRIKES_MAX:
            return False
        del self._strikes[host]
        self._banned_until_s[host] = now_s + BAN_S
        _bound(self._banned_until_s)
        self.bans_total += 1
        return True

    def banned(self, host: HostId, now_s: float) -> bool:
        until_s = self._banned_until_s.get(host)
        if until_s is None:
            return False
        if until_s <= now_s:
            del self._banned_until_s[host]
            return False
        return True


def _bound(book: dict[HostId, int] | dict[HostId, float]) -> None:
    while len(book) > HOSTS_MAX:
        del book[next(iter(book))]
