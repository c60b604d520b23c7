"""Snapshots with their directories: what an engine was told of is there after a crash.

    ROOT/snapshots.v1.db        names, parents, labels
    ROOT/snapshots/<n>/fs       what was written to a snapshot, or unpacked into it
    ROOT/snapshots/<n>/work     overlayfs' own
    ROOT/layers/<n>/            what a layer that is not unpacked is shown by (`layer_files`)
    ROOT/mnt/<n>/               where it is shown
    ROOT/removed/               what is being deleted

A directory is made before its record and removed after it: what a crash leaves is a directory that
nobody knows, and `clean` takes it away.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from p2pdist.errors import ConfigError, StoreError
from p2pdist.model.ids import Digest
from p2pdist.process.files import private_directory
from p2pdist.streaming.snapshotter.core.filters import Filters, fields_of
from p2pdist.streaming.snapshotter.core.mounts import Mount, Places, mounts_of
from p2pdist.streaming.snapshotter.core.snapshots import Kind, Snapshot, Snapshots
from p2pdist.streaming.snapshotter.layer_files import (
    FILES,
    RECIPE,
    LayerPlan,
    read_plan,
    write_layer,
)
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.records import SnapshotRecords

FILE_NAME: Final = "snapshots.v1.db"
IMAGE_STORE: Final = "image-store/"
"""How the names of snapshots begin that belong to an image store: no engine hears of these, which
would remove what it does not know. Those of containerd begin with a namespace and a number."""
BLOCK_BYTES: Final = 512
"""Of `st_blocks`, whatever the file system's are."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    size_bytes: int
    """On the disk."""
    inodes: int


class SnapshotStore:
    """Blocking; one thread at a time, but for `clean`, `usage`, `plans` and `lacking_bytes`. Raises
    what `Snapshots` raises, and StoreError where the disk refuses."""

    def __init__(self, root: Path, now_ns: Callable[[], int]) -> None:
        """Raises ConfigError, StoreError. `now_ns`: the wall clock."""
        self.layers = root / "layers"
        self.shown = root / "mnt"
        self._snapshots = root / "snapshots"
        self._removed = root / "removed"
        self._now_ns = now_ns
        with _told():
            private_directory(root)
            for directory in (self.layers, self.shown, self._snapshots, self._removed):
                directory.mkdir(mode=0o700, exist_ok=True)
            self._records = SnapshotRecords(root / FILE_NAME)
            self._table = self._loaded()

    def close(self) -> None:
        self._records.close()

    def _loaded(self) -> Snapshots:
        return Snapshots(self._records.load(), self._records.last_number())

    # --- what is there --------------------------------------------------------------------------

    def get(self, name: str) -> Snapshot:
        return self._table.get(name)

    def find(self, filters: Sequence[str]) -> list[Snapshot]:
        """Raises BadFilter."""
        wanted = Filters(filters)
        return [
            snapshot
            for snapshot in self._table
            if not snapshot.name.startswith(IMAGE_STORE)
            and wanted.match(
                fields_of(
                    {
                        "name": snapshot.name,
                        "parent": snapshot.parent,
                        "kind": snapshot.kind.name.lower(),
                    },
                    snapshot.labels,
                )
            )
        ]

    def of_image_store(self) -> list[Snapshot]:
        """Those below come first."""
        found = [snapshot for snapshot in self._table if snapshot.name.startswith(IMAGE_STORE)]
        return sorted(found, key=lambda snapshot: snapshot.number)

    def place_of(self, number: int) -> str:
        """Where the files of a layer are that is shown. For any thread."""
        return str(self._plain(number) or self.shown / str(number))

    def recipe_of(self, number: int) -> str | None:
        """How an archive is made of those files again; None: they are not all here. For any
        thread."""
        path = self.layers / str(number) / RECIPE
        return str(path) if path.exists() else None

    def shows(self, chain: Digest, parent: str) -> bool:
        """Whether a layer is there above that parent without having been unpacked."""
        return self._table.shown(chain, parent) is not None

    def unpacked_below(self, parent: str) -> bool:
        """Whether any snapshot from `parent` down was unpacked, or written to."""
        return bool(parent) and any(s.chain is None for s in self._table.down_from(parent))

    def mounts(self, name: str) -> list[Mount]:
        snapshot = self._table.get(name)
        below = self._table.down_from(snapshot.parent) if snapshot.parent else []
        own = Places(self._files(snapshot), str(self._own(snapshot.number) / "work"))
        return mounts_of(snapshot.kind, own, [self._files(lower) for lower in below])

    def shows_any(self, name: str) -> bool:
        """Whether something below a snapshot can only be read where it is shown."""
        below = self._table.down_from(name)
        return any(s.chain is not None and self._plain(s.number) is None for s in below)

    def plans(self) -> list[tuple[int, LayerPlan]]:
        """Of the layers that are shown, by number, in the order in which they came."""
        found = []
        numbers = [int(path.name) for path in self.layers.iterdir() if path.name.isdigit()]
        for number in sorted(numbers):
            with contextlib.suppress(ConfigError, OSError):  # of one that goes, or is damaged
                found.append((number, read_plan(self.layers / str(number))))
        return found

    def lacking_bytes(self) -> list[LayerPlan]:
        """Of those that are shown: whose bytes are elsewhere, and that are no plain files."""
        return [plan for number, plan in self.plans() if not (plan.whole or self._plain(number))]

    def is_plain(self, number: int) -> bool:
        """Whether a layer that is shown became plain files."""
        return self._plain(number) is not None

    def usage(self, snapshot: Snapshot) -> Usage:
        """What it takes by itself. Walks its files; whatever vanishes meanwhile is not counted."""
        place = (
            self.layers / str(snapshot.number)
            if snapshot.chain
            else self._own(snapshot.number) / "fs"
        )
        return _usage(place)

    # --- changes --------------------------------------------------------------------------------

    def add(self, name: str, parent: str, kind: Kind, labels: Mapping[str, str]) -> Snapshot:
        """Make one to write to, or a view."""

        def change() -> Snapshot:
            made = self._table.add(name, parent, kind, labels, self._now_ns())
            self._make_directory(made)
            self._records.put(made)
            return made

        return self._changed(change)

    def show(
        self, name: str, parent: str, labels: Mapping[str, str], opened: OpenedLayer
    ) -> Snapshot:
        """Add a layer as it is, not unpacked."""

        def change() -> Snapshot:
            below = self._table.down_from(parent) if parent else []
            made = self._table.add(
                name, parent, Kind.COMMITTED, labels, self._now_ns(), chain=opened.layer.chain_id
            )
            numbers = [lower.number for lower in reversed(below) if lower.chain is not None]
            write_layer(self.layers, made.number, opened, numbers)
            self._records.put(made)
            return made

        return self._changed(change)

    def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        def change() -> None:
            self._records.put(self._table.commit(name, key, labels, self._now_ns()))

        self._changed(change)

    def relabel(self, name: str, labels: Mapping[str, str], paths: Sequence[str]) -> Snapshot:
        def change() -> Snapshot:
            changed = self._table.relabel(name, labels, paths, self._now_ns())
            self._records.put(changed)
            return changed

        return self._changed(change)

    def remove(self, name: str) -> None:
        """Its files go with the next `clean`."""

        def change() -> None:
            gone = self._table.remove(name)
            self._records.remove(gone.number)
            self._put_aside(gone)

        self._changed(change)

    def clean(self) -> None:
        """Delete what was removed. For any thread: of what is in use nothing is here."""
        for path in self._removed.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    def adopt(self) -> None:
        """Put aside the directories that a crash left without a record. Before anything else."""
        with _told():
            known = {snapshot.number for snapshot in self._table}
            for directory in (self._snapshots, self.layers):
                for path in directory.iterdir():
                    if not (path.name.isdigit() and int(path.name) in known):
                        self._aside(path)

    def lacking(self) -> list[Snapshot]:
        """Those whose directory is gone, by whatever hand: their mounts fail, and nothing else."""
        return [
            snapshot
            for snapshot in self._table
            if not (
                self.layers / str(snapshot.number) if snapshot.chain else self._own(snapshot.number)
            ).is_dir()
        ]

    def _changed(self, change: Callable[[], T]) -> T:
        """Table and disk say the same, whatever the disk did."""
        try:
            with _told():
                return change()
        except StoreError:
            with _told():
                self._table = self._loaded()
            raise

    # --- directories ----------------------------------------------------------------------------

    def _own(self, number: int) -> Path:
        return self._snapshots / str(number)

    def _files(self, snapshot: Snapshot) -> str:
        if snapshot.chain is not None:
            return self.place_of(snapshot.number)
        return str(self._own(snapshot.number) / "fs")

    def _plain(self, number: int) -> Path | None:
        """The files of a layer that was shown, if they are here by now."""
        path = self.layers / str(number) / FILES
        return path if path.is_dir() else None

    def _make_directory(self, snapshot: Snapshot) -> None:
        own = self._own(snapshot.number)
        if own.exists():  # of a crash
            self._aside(own)
        own.mkdir(mode=0o700)
        files = own / "fs"
        files.mkdir()
        files.chmod(0o755)  # the root of a container, whatever the umask of this process
        if snapshot.kind is Kind.ACTIVE:
            (own / "work").mkdir(mode=0o700)
        if snapshot.parent:
            self._own_as_below(files, self._table.get(snapshot.parent))

    def _own_as_below(self, files: Path, parent: Snapshot) -> None:
        """The root of a container belongs to whom its image says, as with containerd's overlay."""
        with contextlib.suppress(FileNotFoundError):  # its mounts will fail, and say so
            status = os.stat(self._files(parent))
            os.chown(files, status.st_uid, status.st_gid)

    def _put_aside(self, snapshot: Snapshot) -> None:
        place = self.layers if snapshot.chain is not None else self._snapshots
        path = place / str(snapshot.number)
        if path.exists():
            self._aside(path)

    def _aside(self, path: Path) -> None:
        path.rename(self._removed / f"{path.name}-{secrets.token_hex(4)}")


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = error.sqlite_errorcode == sqlite3.SQLITE_FULL
        raise StoreError(f"{FILE_NAME}: {error}", full=full) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StoreError(str(error), full=full) from error


def _usage(directory: Path) -> Usage:
    size, inodes, seen = 0, 0, set()
    for place, names, files in os.walk(directory, onerror=None):
        for name in (*names, *files):
            try:
                status = os.lstat(os.path.join(place, name))
            except OSError:
                continue
            if (status.st_dev, status.st_ino) in seen:
                continue
            if status.st_nlink > 1 and name in files:
                seen.add((status.st_dev, status.st_ino))
            size += status.st_blocks * BLOCK_BYTES
            inodes += 1
    return Usage(size, inodes)
