"""Which requests of demand readers a proxy leaves to the peers of its datacenter.

Demand readers are promised nothing and ask for what they need. When a fleet starts the same
container, all need the same chunks in the same second, and the uplink would carry as many copies.
So who asks for chunks that other hosts have, or are being sent, is refused once: it hears of them
from those hosts, in the time of some round trips. Who comes back has not, and gets them here; it is
referred to nobody for a while then, as it may reach nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.tally import Tally

# Doubled each time that a referral was in vain.
PAUSE_FIRST_S: Final = 1.0
PAUSE_MAX_S: Final = 60.0


@dataclass(slots=True)
class _Asker:
    sending: int = 0
    """What goes out to it now."""
    referred: int = 0
    """What it was refused, and did not turn up with yet."""
    pause_s: float = 0.0
    paused_until_s: float = 0.0


class Referrals:
    """Pure. Cost per event: a few operations on integers of one bit a chunk."""

    def __init__(self) -> None:
        self._askers: dict[HostId, _Asker] = {}
        self._sending = Tally()

    def refers(self, host: HostId, bits: int, held: int, now_s: float) -> bool:
        """Whether `host` is to get `bits`, which it asks for, elsewhere. `held`: by peers."""
        asker = self._askers.setdefault(host, _Asker())
        if bits & ~(held | self._sending.at_least(1)) or now_s < asker.paused_until_s:
            return False
        if bits & asker.referred:
            asker.referred = 0
            asker.pause_s = min(PAUSE_MAX_S, 2 * asker.pause_s or PAUSE_FIRST_S)
            asker.paused_until_s = now_s + asker.pause_s
            return False
        asker.referred |= bits
        return True

    def sending(self, host: HostId, bits: int) -> None:
        """`bits` are going out to it."""
        asker = self._askers.setdefault(host, _Asker())
        self._sending.add(bits & ~asker.sending)
        asker.sending |= bits

    def sent(self, host: HostId, bits: int) -> None:
        """`bits` went out to it, or will not."""
        if (asker := self._askers.get(host)) is not None:
            self._sending.remove(bits & asker.sending)
            asker.sending &= ~bits

    def holds(self, host: HostId, bits: int) -> None:
        """It says so: it got elsewhere what it was referred for."""
        asker = self._askers.get(host)
        if asker is not None and asker.referred & bits:
            asker.referred &= ~bits
            asker.pause_s = 0.0

    def left(self, host: HostId) -> None:
        if (asker := self._askers.pop(host, None)) is not None:
            self._sending.remove(asker.sending)
