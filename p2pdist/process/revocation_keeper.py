"""Keeps the revocations of one daemon: read from its files, heard from its tracker, kept for the
next start. What a tracker that lost all it knew does not tell is known here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.members import Role
from p2pdist.process import logs
from p2pdist.process.files import Mark, mark_of, private_directory
from p2pdist.process.revocation_lists import LIST_NAME, read_list, write_list
from p2pdist.process.revoked_hosts import RevokedHosts, judge
from p2pdist.settings import Settings

NAMED_MAX: Final = 8
"""How many hosts a line of the log names."""

log = logging.getLogger(__name__)


class RevocationKeeper:
    """For the event loop; `load` and the functions beside it block."""

    def __init__(
        self,
        lists: Sequence[Path] = (),
        kept: Path | None = None,
        hosts: RevokedHosts | None = None,
    ) -> None:
        """`lists`: what others may put there at any time. `kept`: a file of ours, in a directory of
        ours; None: nothing outlives this process. `hosts`: those that are known, to add to."""
        self.hosts = RevokedHosts() if hosts is None else hosts
        self.on_more: list[Callable[[], None]] = []
        """Called when more hosts are revoked; must not block."""
        self.trouble = ""
        """What is wrong with the lists that lie there."""
        self._lists = lists
        self._kept = kept
        self._seen: list[Mark | None] = []
        self._on_disk = 0
        """How many of the records are in `kept`, to which more are only added."""
        self._said_unkept = False
        self._one_at_a_time = asyncio.Lock()

    def load(self, cas: Sequence[bytes]) -> None:
        """Take in what lies there; what is no good is `trouble`. Blocking. Writes nothing."""
        self._seen, self.trouble = self._marks(), ""
        kept = [] if self._kept is None else self._read([self._kept])
        self.hosts.take(judge([*kept, *self._read(self._lists)], cas))
        self._on_disk = len(set(kept).intersection(self.hosts.records))

    async def look(self, cas: Sequence[bytes]) -> bool:
        """Read lists that have changed; return whether more hosts are revoked than before."""
        async with self._one_at_a_time:
            seen = await asyncio.to_thread(self._marks)
            records = []
            if seen != self._seen:
                self._seen, self.trouble, self.hosts.trouble = seen, "", ""
                records = await asyncio.to_thread(self._read, self._lists)
            return await self._take(records, cas)

    async def hear(self, records: Iterable[bytes], cas: Sequence[bytes]) -> bool:
        """Take in what a tracker told; return whether more hosts are revoked than before."""
        async with self._one_at_a_time:
            return await self._take(records, cas)

    async def _take(self, records: Iterable[bytes], cas: Sequence[bytes]) -> bool:
        unknown = self.hosts.unknown(records)
        judged = await asyncio.to_thread(judge, unknown, cas) if unknown else []
        if fresh := self.hosts.take(judged):
            named, more = sorted(fresh)[:NAMED_MAX], max(0, len(fresh) - NAMED_MAX)
            logs.event(log, logging.WARNING, "hosts.revoked", hosts=", ".join(named), more=more)
            for tell in self.on_more:
                tell()
        if self._kept is not None and self._on_disk < len(known := self.hosts.records):
            await asyncio.to_thread(self._keep, self._kept, known)
        return bool(fresh)

    def _marks(self) -> list[Mark | None]:
        return [mark_of(path) for path in self._lists]

    def _read(self, paths: Iterable[Path]) -> list[bytes]:
        records: list[bytes] = []
        for path in paths:
            try:
                records += read_list(path)
            except (OSError, ValueError) as error:
                self.trouble = str(error)
                logs.event(log, logging.ERROR, "revocations.unread", error=self.trouble)
        return records

    def _keep(self, path: Path, records: list[bytes]) -> None:
        """A host that cannot write knows them for as long as it runs, and tries again."""
        try:
            private_directory(path.parent)
            write_list(path, records)
            self._on_disk, self._said_unkept = len(records), False
        except (OSError, ConfigError) as error:
            if not self._said_unkept:
                self._said_unkept = True
                logs.event(log, logging.ERROR, "revocations.unkept", error=str(error))


def revocation_keeper(settings: Settings, role: Role) -> RevocationKeeper:
    """Return the keeper of this host's daemon of `role`, with nothing read so far."""
    directory: Path | None = getattr(settings, role.value).identity_dir
    places = [] if directory is None else [directory]
    if role is Role.TRACKER and settings.tracker.ca_dir is not None:
        places.append(settings.tracker.ca_dir)
    kept = settings.host.state_dir / role.value / LIST_NAME
    return RevocationKeeper([place / LIST_NAME for place in places], kept)
