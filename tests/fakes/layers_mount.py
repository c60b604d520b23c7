"""In the place of the mount of a host's layers, for tests without root."""

from __future__ import annotations

from pathlib import Path

from p2pdist.streaming.fuse.mounting import CannotMount


class Mounted:
    """`broken`: it does not answer, and cannot be made again."""

    broken = False

    def __init__(self, root: Path, endpoint: str) -> None:
        self.path = root / "mnt"

    def begin(self) -> None:
        pass

    def answers(self) -> bool:
        return not self.broken

    def ensure(self) -> None:
        if self.broken:
            raise CannotMount("no FUSE today")

    def have_read(self, number: int) -> None:
        pass
