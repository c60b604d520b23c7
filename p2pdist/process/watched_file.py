"""What a daemon read from one file: at its start, and again when another file lies there."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from p2pdist.errors import ConfigError
from p2pdist.process.files import Mark, mark_of

LOOK_EVERY_S: Final = 5.0
"""One call of `stat`, in a thread."""

Read = TypeVar("Read")


class WatchedFile(ABC, Generic[Read]):
    """What lies in it, for the event loop. Whoever makes one says in a class of its own how it is
    read, and what is said of it."""

    def __init__(self, path: Path | None, first: Read, seen: Mark | None = None) -> None:
        """`path`: None: there is no file, and nothing to look at. `seen`: its marks when `first`
        was read from it; None: nothing lay there."""
        self.path = path
        self._current = first
        self.trouble = ""
        """What is wrong with the file that lies there now, while what was read before holds."""
        self.taken_total = 0
        """How often a file was taken up since the start."""
        self.on_taken: list[Callable[[], Awaitable[None]]] = []
        """Who has to do something about it."""
        self._seen = seen
        self._doubted = seen
        """The file that was looked at last: somebody may be writing it."""

    @abstractmethod
    def load(self, path: Path) -> Read:
        """Blocking. Raises ConfigError."""

    @abstractmethod
    def say_taken(self) -> None:
        """In the log: what was read is in use from now on."""

    @abstractmethod
    def say_unread(self) -> None:
        """In the log: `trouble`."""

    def same(self, found: Read) -> bool:
        """It is what was read before: the file was touched."""
        return found == self._current

    def take(self, found: Read) -> None:
        """Go by it from now on."""
        self._current = found

    async def watch(self) -> None:
        """Look for ever."""
        while self.path is not None:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    def look_anew(self) -> None:
        """The file that is no good may be, as something else changed: look at it once more."""
        if self.trouble:
            self._seen = None

    async def look(self) -> None:
        """Take up another file than the one that was read last, if it is any good.

        At the second look only, when it has not changed since the first: half a key is one, too.
        """
        if self.path is None:
            return
        seen, found = await asyncio.to_thread(self._read, self.path)
        if found is None:
            return
        if seen != self._doubted:
            self._doubted = seen
        elif isinstance(found, _Unread):
            self._seen, self.trouble = seen, found.why
            self.say_unread()
        else:
            self._seen, self.trouble = seen, ""
            await self._take(found.what)

    def _read(self, path: Path) -> tuple[Mark | None, _Found[Read] | _Unread | None]:
        """Return what lies there by its marks, and what it is; None for what is known, or changes
        under our eyes. Blocking."""
        seen = mark_of(path)
        if seen == self._seen:
            return seen, None
        found: _Found[Read] | _Unread
        try:
            found = _Found(self.load(path))
        except ConfigError as error:
            found = _Unread(str(error))
        return seen, found if mark_of(path) == seen else None

    async def _take(self, found: Read) -> None:
        if self.same(found):
            return
        self.take(found)
        self.taken_total += 1
        self.say_taken()
        for told in self.on_taken:
            await told()


class _Found(Generic[Read]):
    def __init__(self, what: Read) -> None:
        self.what = what


class _Unread:
    def __init__(self, why: str) -> None:
        self.why = why
