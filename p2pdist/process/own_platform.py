"""The platform of this machine, as image indexes name it."""

from __future__ import annotations

import platform
import sys
from typing import Final

_ARCHITECTURES: Final = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm/v7",
    "armv6l": "arm/v6",
    "i686": "386",
}


def own_platform() -> str:
    """Return `os/architecture[/variant]`, such as `linux/amd64`."""
    machine = platform.machine().lower()
    return f"{sys.platform}/{_ARCHITECTURES.get(machine, machine)}"
