"""Who may still serve us: strikes, and bans that grow with what a host goes on doing.

Nothing ties the bytes of a link that is not sealed to the host that shook hands on it: whoever sits
on the wire, or a network card that flips bits, can say anything in its name. So a ban is short at
first, and grows only while its host, given another chance, is wrong again. Banned for ten minutes
at once, the only proxy of a datacenter was off for three flipped bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import HostId

STRIKES_MAX: Final = 3  # "banned after at most 3 wrong chunks"
BAN_FIRST_S: Final = 5.0
# A liar that is let in again each minute costs three chunks each time.
BAN_MAX_S: Final = 60.0
# After its last ban a host that did nothing wrong begins anew.
FORGIVEN_S: Final = 600.0
HOSTS_MAX: Final = 4096


@dataclass(slots=True)
class _Record:
    strikes: int = 0
    bans: int = 0
    until_s: float = 0.0


class TrustBook:
    """Counts wrong answers per host; pure. When full, the oldest entry is forgotten."""

    def __init__(self) -> None:
        self._hosts: dict[HostId, _Record] = {}
        self.bans_total = 0

    def strike(self, host: HostId, now_s: float, weight: int = 1, *, ban: bool = True) -> bool:
        """Note a wrong answer; return whether it was one too many: the link to `host` is to end,
        and the host is banned, unless `ban` is False.

        What was on its way from a host that is banned already counts no more.
        """
        if self.banned(host, now_s):
            return False
        record = self._hosts.pop(host, None) or _Record()
        if record.bans and now_s - record.until_s >= FORGIVEN_S:
            record = _Record()
        self._hosts[host] = record
        if len(self._hosts) > HOSTS_MAX:
            del self._hosts[next(iter(self._hosts))]
        record.strikes += weight
        if record.strikes < STRIKES_MAX:
            return False
        record.strikes = 0
        if not ban:
            return True
        record.until_s = now_s + min(BAN_MAX_S, BAN_FIRST_S * 2.0 ** min(record.bans, 16))
        record.bans += 1
        self.bans_total += 1
        return True

    def banned(self, host: HostId, now_s: float) -> bool:
        record = self._hosts.get(host)
        return record is not None and now_s < record.until_s
