"""All that a tree of files says of itself, and in what two of them differ."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final

PIECE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Entry:
    """What lstat(2), readlink(2), listxattr(2) and read(2) tell of one path."""

    mode: int
    """With the type."""
    uid: int
    gid: int
    device: int
    size_bytes: int
    """Of a directory 0: each file system has its own idea of that."""
    mtime_ns: int
    names: frozenset[bytes]
    """All paths of the tree that are this file; of a directory its own."""
    links: int
    """As stat counts them; of a directory 0, as overlayfs says 1 of all."""
    xattrs: Mapping[str, bytes]
    content: bytes
    """A symbolic link's target; the SHA-256 of what is in a regular file."""


Listing = Mapping[bytes, Entry]


@dataclass(frozen=True, slots=True)
class Excuse:
    """A known difference between two trees: fields of some paths, and why nobody mends it."""

    why: str
    fields: frozenset[str]
    """Of `Entry`; `there`: one tree has the path and the other has not."""
    paths: frozenset[bytes]


def listing(root: Path) -> Listing:
    """Every path below `root`, from `/` on. Raises OSError for what cannot be read."""
    top = os.fsencode(root)
    status_of = {b"/": os.lstat(top)}
    for place, directories, files in os.walk(top, onerror=_raise):
        for name in (*directories, *files):
            path = os.path.join(place, name)
            status_of[path[len(top) :]] = os.lstat(path)
    names: dict[tuple[int, int], set[bytes]] = {}
    for path, status in status_of.items():
        names.setdefault((status.st_dev, status.st_ino), set()).add(path)
    return {
        path: _entry(top + path, path, status, names[status.st_dev, status.st_ino])
        for path, status in status_of.items()
    }


def differences(
    seen: Listing, expected: Listing, excuses: Sequence[Excuse] = (), *, all_needed: bool = True
) -> list[str]:
    """A line for each difference that is not excused, in the order of the paths; if `all_needed`,
    excuses for what does not differ at all are named, too."""
    excused = {
        (path, name) for excuse in excuses for path in excuse.paths for name in excuse.fields
    }
    found: dict[tuple[bytes, str], str] = {}
    for path in sorted({*seen, *expected}):
        one, other = seen.get(path), expected.get(path)
        if one is None or other is None:
            found[path, "there"] = f"{path!r} is only {'expected' if one is None else 'seen'}"
            continue
        for field in fields(Entry):
            ours, theirs = getattr(one, field.name), getattr(other, field.name)
            if ours != theirs:
                found[path, field.name] = f"{path!r} {field.name}: {ours!r}, expected {theirs!r}"
    idle = [
        f"nothing to excuse: {excuse.why}"
        for excuse in excuses
        if all_needed
        and not any((path, name) in found for path in excuse.paths for name in excuse.fields)
    ]
    return [text for key, text in found.items() if key not in excused] + idle


def _entry(full: bytes, path: bytes, status: os.stat_result, names: set[bytes]) -> Entry:
    is_directory = stat.S_ISDIR(status.st_mode)
    return Entry(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_rdev,
        0 if is_directory else status.st_size,
        status.st_mtime_ns,
        frozenset({path} if is_directory else names),
        0 if is_directory else status.st_nlink,
        _xattrs(full),
        _content(full, status.st_mode),
    )


def _xattrs(full: bytes) -> Mapping[str, bytes]:
    """A mount of layers that have none says so for all of them: it knows of no attributes."""
    try:
        names = os.listxattr(full, follow_symlinks=False)
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return {}
        raise
    return {name: os.getxattr(full, name, follow_symlinks=False) for name in names}


def _content(full: bytes, mode: int) -> bytes:
    if stat.S_ISLNK(mode):
        return os.readlink(full)
    if not stat.S_ISREG(mode):
        return b""
    with open(full, "rb", buffering=0) as file:
        hashed: Any = hashlib.sha256()
        while piece := file.read(PIECE_BYTES):
            hashed.update(piece)
    return bytes(hashed.digest())


def _raise(error: OSError) -> None:
    raise error
