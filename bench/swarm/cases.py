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
    mbit_per_s: int
    layers_mib: tuple[int, ...] = (200,)
    warm: bool = False
    """The proxy holds the image already."""
    ratio_max: float = 1.10
    """Target: the last host's time over the limit."""
    copies_max: float | None = None
    """Target: copies of the image that leave the proxy."""
    rival: bool = False
    """aria2 runs it, too."""

    @property
    def size_bytes(self) -> int:
        return sum(self.layers_mib) * MIB

    @property
    def limit_s(self) -> float:
        """No host can have the image sooner than its own link carries it."""
        return self.size_bytes * 8 / (self.mbit_per_s * 1e6) / PAYLOAD_SHARE


SIX_LAYERS: Final = (70, 50, 35, 25, 15, 5)

CASES: Final = (
    Case("cold_8x100", 8, 100, rival=True),
    Case("cold_8x50", 8, 50),
    Case("six_layers_8x100", 8, 100, SIX_LAYERS, ratio_max=1.12, rival=True),
    Case("warm_8x100", 8, 100, warm=True, ratio_max=1.20, copies_max=1.3),
)
