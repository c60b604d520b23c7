"""Where the store keeps what, and whose it is."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.runtime.files import private_directory, sweep_unfinished, write_whole

FORMAT: Final = 1


def blob_path(root: Path, digest: Digest) -> Path:
    """Where a digest lies; digests are validated, so no name of the path is anybody's choice."""
    algorithm, _, encoded = digest.partition(":")
    return root / algorithm / encoded[:2] / encoded


def make_directories(root: Path) -> None:
    private_directory(root)
    for name in ("blobs", "small", "statements"):
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
    version = root / "format"
    if not version.exists():
        write_whole(version, f"{FORMAT}\n".encode())
    found = version.read_text().strip()
    if found != str(FORMAT):
        os.close(fd)
        raise ConfigError(
            f"{root} has store format {found[:20]}, this version knows {FORMAT}: "
            "use the version that made it, or move the directory away"
        )
    return fd


def blob_directories(root: Path) -> list[Path]:
    """Directories whose names are digests; left-overs of removals are taken away."""
    found = []
    for path in root.glob("*/*/*"):
        try:
            parse_digest(f"{path.parent.parent.name}:{path.name}")
        except ValueError:
            shutil.rmtree(path, ignore_errors=True)
            continue
        if path.is_dir() and not path.is_symlink():
            found.append(path)
    return found
