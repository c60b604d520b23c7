"""Who refused us a link, and until when we leave it alone.

A refused host goes on with its other sources. It never asks again before the time that it was told;
the more often it is refused, the longer it waits, so that those beyond a limit cost little.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from p2pdist.model.ids import HostId

# 30,000 hosts that are refused for ever come 100 times a second then.
WAIT_MAX_S: Final = 300.0
HOSTS_MAX: Final = 4096


@dataclass(slots=True)
class _Refused:
    until_s: float
    times: int


class RefusalBook:
    """Pure. When full, the oldest entry is forgotten."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._hosts: dict[HostId, _Refused] = {}

    def refused(self, host: HostId, retry_s: float, now_s: float) -> None:
        """`host` keeps no link with us, and may be asked again after `retry_s`.

        Twice as long each time in a row, half as long again at random: those who were refused in
        one moment must not come back in one.
        """
        before = self._hosts.pop(host, None)
        times = before.times + 1 if before is not None else 1
        wait_s = max(retry_s, min(WAIT_MAX_S, retry_s * 2.0 ** min(times - 1, 16)))
        until_s = now_s + wait_s * (1 + self._rng.random() / 2)
        self._hosts[host] = _Refused(until_s, times)
        while len(self._hosts) > HOSTS_MAX:
            del self._hosts[next(iter(self._hosts))]

    def accepted(self, host: HostId) -> None:
        """There is a link."""
        self._hosts.pop(host, None)

    def until_s(self, host: HostId) -> float:
        """When `host` may be asked again; in the past if it may."""
        entry = self._hosts.get(host)
        return entry.until_s if entry is not None else 0.0

    def waits(self, host: HostId, now_s: float) -> bool:
        return self.until_s(host) > now_s
