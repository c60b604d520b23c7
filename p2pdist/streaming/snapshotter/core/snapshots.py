"""What an engine knows of snapshots: names, parents, kinds and labels.

The rules are those of containerd's own (`core/snapshots/storage/bolt.go`): a snapshot is made
active or as a view above a committed one, an active one is committed under a name of its own, and
what has others above it stays.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from p2pdist.errors import P2pdistError
from p2pdist.model.ids import Digest

LABEL_PREFIX: Final = "labels."
SNAPSHOTS_MAX: Final = 100_000
LABEL_BYTES_MAX: Final = 4096
"""Of key and value together, as containerd has it."""
NAME_BYTES_MAX: Final = 4096


class Kind(enum.IntEnum):
    """As numbered in `snapshots.proto`."""

    VIEW = 1
    ACTIVE = 2
    COMMITTED = 3


class SnapshotExists(P2pdistError):
    """There is one of that name."""


class NoSuchSnapshot(P2pdistError):
    """There is none of that name."""


class SnapshotInUse(P2pdistError):
    """Others are made above it."""


class NotPossible(P2pdistError):
    """What is asked for contradicts what is there, or itself."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    name: str
    number: int
    """Names its directory; never used again."""
    kind: Kind
    parent: str
    """Empty: none."""
    created_ns: int
    updated_ns: int
    labels: Mapping[str, str] = field(default_factory=dict)
    chain: Digest | None = None
    """The chain ID of a layer that shows here without having been unpacked."""


class Snapshots:
    """Pure; time enters as `now_ns` (wall clock, nanoseconds). Each change costs as much with many
    snapshots as with few."""

    def __init__(self, known: Sequence[Snapshot] = (), last_number: int = 0) -> None:
        """`known`: those of an earlier run, in any order; `last_number`: the last one that was
        ever given away."""
        self._by_name: dict[str, Snapshot] = {}
        self._children: dict[str, int] = {}
        self._shown: dict[tuple[Digest, str], str] = {}
        """By chain ID and parent: the name of what is not unpacked."""
        self._last_number = max([last_number, *(snapshot.number for snapshot in known)])
        for snapshot in known:
            self._put(snapshot)

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Snapshot]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Snapshot:
        """Raises NoSuchSnapshot."""
        try:
            return self._by_name[name]
        except KeyError:
            raise NoSuchSnapshot(f"snapshot {name!r} does not exist") from None

    def shown(self, chain: Digest, parent: str) -> Snapshot | None:
        """What shows this layer above that parent without having been unpacked."""
        name = self._shown.get((chain, parent))
        return None if name is None else self._by_name[name]

    def add(
        self,
        name: str,
        parent: str,
        kind: Kind,
        labels: Mapping[str, str],
        now_ns: int,
        *,
        chain: Digest | None = None,
    ) -> Snapshot:
        """Make one above `parent`; `chain`: of a committed one that is not unpacked.

        Raises SnapshotExists, NoSuchSnapshot for the parent, NotPossible.
        """
        _check_name(name)
        if name in self._by_name:
            raise SnapshotExists(f"snapshot {name!r} already exists")
        if parent and self.get(parent).kind is not Kind.COMMITTED:
            raise NotPossible(f"parent {parent!r} is not a committed snapshot")
        if len(self._by_name) >= SNAPSHOTS_MAX:
            raise NotPossible(f"more than {SNAPSHOTS_MAX} snapshots")
        self._last_number += 1
        made = Snapshot(
            name, self._last_number, kind, parent, now_ns, now_ns, _checked(labels), chain
        )
        self._put(made)
        return made

    def commit(self, name: str, key: str, labels: Mapping[str, str], now_ns: int) -> Snapshot:
        """Make the active `key` a committed one called `name`; it keeps its directory.

        Raises NoSuchSnapshot, SnapshotExists, NotPossible.
        """
        _check_name(name)
        active = self.get(key)
        if name in self._by_name:
            raise SnapshotExists(f"snapshot {name!r} already exists")
        if active.kind is not Kind.ACTIVE:
            raise NotPossible(f"snapshot {key!r} is not active")
        committed = replace(
            active,
            name=name,
            kind=Kind.COMMITTED,
            created_ns=now_ns,
            updated_ns=now_ns,
            labels=_checked(labels),
        )
        del self._by_name[key]
        self._by_name[name] = committed
        return committed

    def remove(self, name: str) -> Snapshot:
        """Forget one, and return it. Raises NoSuchSnapshot, SnapshotInUse."""
        gone = self.get(name)
        if self._children.get(name):
            raise SnapshotInUse(f"snapshot {name!r} has others above it")
        del self._by_name[name]
        if gone.chain is not None:
            self._shown.pop((gone.chain, gone.parent), None)
        self._above(gone.parent, -1)
        return gone

    def relabel(
        self, name: str, labels: Mapping[str, str], paths: Sequence[str], now_ns: int
    ) -> Snapshot:
        """Set all labels, or those of `paths` (`labels`, `labels.<key>`). Raises NoSuchSnapshot,
        NotPossible."""
        before = self.get(name)
        after = dict(before.labels)
        for path in paths or ("labels",):
            if path == "labels":
                after = dict(labels)
            elif path.startswith(LABEL_PREFIX):
                key = path.removeprefix(LABEL_PREFIX)
                after.pop(key, None)
                if labels.get(key):
                    after[key] = labels[key]
            else:
                raise NotPossible(f"cannot update {path!r} of a snapshot")
        changed = replace(before, labels=_checked(after), updated_ns=now_ns)
        self._by_name[name] = changed
        return changed

    def down_from(self, name: str) -> list[Snapshot]:
        """The snapshot and those below it, from the top one down. Raises NoSuchSnapshot."""
        chain = [self.get(name)]
        while chain[-1].parent:
            chain.append(self.get(chain[-1].parent))
        return chain

    def _put(self, snapshot: Snapshot) -> None:
        self._by_name[snapshot.name] = snapshot
        if snapshot.chain is not None:
            self._shown[snapshot.chain, snapshot.parent] = snapshot.name
        self._above(snapshot.parent, 1)

    def _above(self, parent: str, change: int) -> None:
        if not parent:
            return
        count = self._children.get(parent, 0) + change
        if count:
            self._children[parent] = count
        else:
            self._children.pop(parent, None)


def _check_name(name: str) -> None:
    if not 0 < len(name.encode()) <= NAME_BYTES_MAX:
        raise NotPossible(f"a name of {len(name.encode())} bytes")


def _checked(labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if len(key.encode()) + len(value.encode()) > LABEL_BYTES_MAX:
            raise NotPossible(f"label {key[:80]!r} has more than {LABEL_BYTES_MAX} bytes")
    return dict(labels)
