"""Where the store keeps what, and whose it is."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.ids import Digest, parse_exchanged
from p2pdist.process import logs
from p2pdist.process.files import (
    private_directory,
    read_bounded_file,
    sweep_unfinished,
    write_whole,
)
from p2pdist.store.statements import INDEXES, TAGS

log = logging.getLogger(__name__)

FORMAT: Final = 1
FORMAT_BYTES_MAX: Final = 64
_NAMES: Final = frozenset(
    {"lock", "format", "blobs", "small", TAGS, INDEXES, "revocations", "pins"}
)


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a digest lies; digests are validated, so no name of the path is anybody's choice."""
    algorithm, _, encoded = digest.partition(":")
    return root / algorithm / encoded[:2] / encoded


def make_directories(root: Path) -> None:
    private_directory(root)
    for name in ("blobs", "small", TAGS, INDEXES):
        private_directory(root / name)


def claim(root: Path) -> int:
    """Make the directory ours, check its format, lock it; return the lock's descriptor."""
    make_directories(root)
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ConfigError(f"{root} is in use by another daemon") from None
    sweep_unfinished(root)
    try:
        _check_format(root)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_format(root: Path) -> None:
    path = root / "format"
    raw = read_bounded_file(path, FORMAT_BYTES_MAX) if path.exists() else b""
    found = b"?" if raw is None else raw.strip(b"\0 \n")
    if not found:  # new, or lost in a power cut: then whatever else lies here has to be ours
        strange = sorted({entry.name for entry in root.iterdir()} - _NAMES)
        if strange:
            raise ConfigError(f"{path} is empty and {root / strange[0]} is not ours: remove it")
        if raw or path.exists():
            logs.event(log, logging.WARNING, "store.format_lost", path=str(path), taken_as=FORMAT)
        write_whole(path, b"%d\n" % FORMAT, points="store")
    elif found != b"%d" % FORMAT:
        raise ConfigError(
            f"{root} has store format {found.decode(errors='replace')}, this version knows "
            f"{FORMAT}: use the version that made it, or move the directory away"
        )


def blob_directories(root: Path) -> list[Path]:
    """Directories whose names are digests; left-overs of removals are taken away."""
    found = []
    for path in root.glob("*/*/*"):
        try:
            parse_exchanged(f"{path.parent.parent.name}:{path.name}")
        except ValueError:
            shutil.rmtree(path, ignore_errors=True)
            continue
        if path.is_dir() and not path.is_symlink():
            found.append(path)
    return found
