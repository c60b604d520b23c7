"""What is measured: hosts, links, image, and where the image lies when the hosts begin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

MIB: Final = 1 << 20
# Payload of a full frame at MTU 1500 with TCP timestamps, over its length on Ethernet.
PAYLOAD_SHARE: Final = 1448 / 1514


@dataclass(frozen=True, slots=True)
class Case:
    name: str
    hosts: int
    mbit_per_s: int | None
    """Of each host's link; None: what the machine moves."""
    layers_mib: tuple[int, ...] = (200,)
    core_mbit_per_s: int | None = None
    """The proxy's link; None: like the hosts'."""
    warm: bool = False
    """The proxy holds the image already."""
    holders: int = 0
    """Hosts beside those that are measured, which hold the image already."""
    holder_up_mbit_per_s: int | None = None
    """What their links carry away from them; None: like the hosts'."""
    tracker_dies_s: float | None = None
    """How long after the common start it is killed."""
    burners: int = 0
    """Processes of others that keep a core busy each meanwhile."""
    ratio_max: float | None = 1.10
    """Target: the last host's time over the limit, or over that of `beside`."""
    copies: tuple[str, float] | None = None
    """Target and its name: copies of the image that leave the proxy."""
    rival: bool = False
    """aria2 and libtorrent run it, too."""
    checked_after: bool = False
    """Clients only read, and check in a second reading that is not measured: where cores are what
    is short, a client's check would be most of it, and rivals have none."""
    beside: str | None = None
    """Case to hold it against, in place of the limit."""

    @property
    def size_bytes(self) -> int:
        return sum(self.layers_mib) * MIB

    @property
    def limit_s(self) -> float | None:
        """No host can have the image sooner than its own link carries it, where that is limited."""
        if self.mbit_per_s is None:
            return None
        return self.size_bytes * 8 / (self.mbit_per_s * 1e6) / PAYLOAD_SHARE


SIX_LAYERS: Final = (70, 50, 35, 25, 15, 5)

CASES: Final = (
    Case("cold_8x100", 8, 100, rival=True),
    Case("cold_8x50", 8, 50),
    Case("cold_15x100", 15, 100),
    Case("six_layers_8x100", 8, 100, SIX_LAYERS, ratio_max=1.12, rival=True),
    Case("warm_8x100", 8, 100, warm=True, ratio_max=1.20, copies=("warm_proxy_copies", 1.3)),
    Case("warm_15x50", 15, 50, warm=True, ratio_max=1.20),
    Case(
        "one_holder_12x100",
        *(12, 100, (100,)),
        core_mbit_per_s=1000,
        warm=True,
        holders=1,
        ratio_max=1.20,
    ),
    Case("proxy_alone", 1, 1000, warm=True, ratio_max=None),
    Case(
        "slow_holders",
        *(1, 1000),
        warm=True,
        holders=6,
        holder_up_mbit_per_s=2,
        ratio_max=1.15,
        beside="proxy_alone",
    ),
    Case("loopback", 4, None, (512,), warm=True, ratio_max=None, rival=True, checked_after=True),
    Case("starved", 8, 100, burners=2, ratio_max=None, copies=("starved.proxy_copies", 1.3)),
)
