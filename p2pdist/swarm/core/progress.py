"""Since when a blob makes no progress, by what came and by what is only said to come."""

from __future__ import annotations

from typing import Final

# A registry that brings a chunk of 256 KiB in this time (26 kB/s) is the slowest that is waited for
# on the word of its proxy. What nothing follows is no progress: a liar would hold a reader up for
# ever.
WORD_MAX_S: Final = 10.0
# What others are told of it ends earlier: when they come to ask for the bytes, we go ahead.
PASSED_ON_MAX_S: Final = 7.0


class Progress:
    """Pure; one blob's."""

    def __init__(self, now_s: float) -> None:
        self._came_s = now_s
        self._said_s = now_s
        self.denied = False
        """A proxy that was to bring it in says that nothing comes, and nothing came since."""

    def came(self, now_s: float) -> None:
        """Verified bytes, signed hashes, or our own read from outside."""
        self._came_s, self.denied = now_s, False

    def said(self, now_s: float) -> bool:
        """A proxy says that it brings the blob in; return whether to pass that on."""
        counts = now_s - self._came_s <= WORD_MAX_S
        if counts:
            self._said_s, self.denied = now_s, False
        return now_s - self._came_s <= PASSED_ON_MAX_S

    @property
    def heard_s(self) -> float:
        """When something of it came last, or was said to come."""
        return max(self._came_s, self._said_s)

    def idle_s(self, now_s: float) -> float:
        return now_s - self.heard_s
