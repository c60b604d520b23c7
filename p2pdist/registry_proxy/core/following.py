"""How a blob in motion stands, and how long whoever brings it may bring nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class BlobView:
    """One look at a blob in motion."""

    complete: bool = False
    failed: bool = False
    """Nothing more will come of it."""
    prefix_chunks: int = 0
    """How many from the first on are there without a gap."""
    held_chunks: int = 0
    idle_s: float = 0.0
    """Since bytes of it came in from anywhere, or it was held back last."""

    @property
    def over(self) -> bool:
        return self.complete or self.failed


class Following:
    """Waits for a blob that others bring. Pure: time enters as monotonic `now_s`."""

    def __init__(self, silence_s: float, now_s: float) -> None:
        """`silence_s`: how long nothing may come, from now on."""
        self._silence_s = silence_s
        self._began_s = now_s
        self.due_s = now_s + silence_s
        """When to look again at the latest."""

    def look(self, view: BlobView, now_s: float, *, source_gone: bool = False) -> bool | None:
        """Return True once the blob is whole or has failed, and False when nothing came for too
        long, or the only source is gone. None: go on waiting."""
        if view.over:
            return True
        self.due_s = max(self._began_s, now_s - view.idle_s) + self._silence_s
        return False if source_gone or now_s >= self.due_s else None
