"""What durable state is to whoever keeps it: records by their keys, changed all or nothing.

For state that was promised to somebody, such as jobs that were accepted. What is only a stopgap,
and replaced as a whole every half minute, is no such state (`docs/architecture.md`, Storage). What
these protocols promise is held by `tests/conformance/state`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

Key = tuple[str, ...]
Record = bytes
T = TypeVar("T")

Tables = Mapping[str, Sequence[str]]
"""Name of a table -> names of the parts of its keys."""
Puts = Mapping[str, Sequence[tuple[Key, Record]]]
"""Name of a table -> records that take the place of those with the same key."""
Deletes = Mapping[str, Sequence[Key]]
"""Name of a table -> keys, or their first parts: all that begin so go."""


class StateRows(Protocol):
    """What is stored, for as long as `read` runs."""

    def of(self, table: str, begin: Key = ()) -> Iterator[Record]:
        """The records whose keys begin so, in no order."""


class StateStore(Protocol):
    """For one process at a time. Coroutines raise StoreError where the disk refuses; what was to be
    written is not there then."""

    async def open(self, read: Callable[[StateRows], T]) -> T:
        """Return what `read` makes of all that is stored; called first, once. `read` runs in
        another thread and raises ValueError for what makes no sense: all is put aside then, and
        `read` once more finds nothing."""

    async def write(self, puts: Puts, deletes: Deletes) -> None:
        """All of it, first the puts, or nothing; on return it survives a power cut."""

    async def close(self) -> None: ...
