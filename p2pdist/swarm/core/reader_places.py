"""Where in one blob the readers of this host are."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from p2pdist.swarm.core.fetch_events import ReaderMoved


class ReaderPlaces:
    """A reader is known by a number; places are bytes, for the fetch they are chunks. Pure."""

    def __init__(self, chunk_at: Callable[[int], int]) -> None:
        """`chunk_at`: the chunk of a byte, in the cut that counts now."""
        self._chunk_at = chunk_at
        self._ids = itertools.count()
        self._offsets: dict[int, int] = {}
        self._ends: dict[int, int] = {}  # of demand readers: where their ranges end

    def __bool__(self) -> bool:
        return bool(self._offsets)

    @property
    def ordinary(self) -> bool:
        """Somebody reads it who is no demand reader."""
        return len(self._offsets) > len(self._ends)

    def open(self) -> int:
        return next(self._ids)

    def moved(self, reader: int, offset: int, until: int | None) -> None:
        """It waits for the byte at `offset`; `until`: where the part ends that it demands."""
        self._offsets[reader] = offset
        if until is not None:
            self._ends[reader] = until
        else:
            self._ends.pop(reader, None)

    def close(self, reader: int) -> bool:
        """Return whether it was open."""
        self._ends.pop(reader, None)
        return self._offsets.pop(reader, None) is not None

    def place(self, reader: int) -> ReaderMoved:
        """The chunk that it waits for, and the one after the last that it demands."""
        at, until = self._offsets[reader], self._ends.get(reader)
        chunk = self._chunk_at(at)
        if until is None:
            return ReaderMoved(reader, chunk)
        return ReaderMoved(reader, chunk, self._chunk_at(until - 1) + 1 if until > at else 0)

    def places(self) -> list[ReaderMoved]:
        """Of all readers."""
        return [self.place(reader) for reader in self._offsets]

    def validate(self) -> None:
        """Assert that who demands a part reads."""
        assert self._ends.keys() <= self._offsets.keys()
