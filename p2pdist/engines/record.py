"""What an installation changed, kept so that it can be taken back byte for byte.

The record is written before any of the engine's files: an installation that was killed at any point
can be done again or taken back.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.errors import ConfigError
from p2pdist.runtime.files import sync_directory

FORMAT: Final = 1
DEFAULT_DIR: Final = Path("/var/lib/p2pdist/runtime")


class FileRecord(msgspec.Struct):
    path: str
    original: bytes | None
    """What was there before; None: no file."""
    written_sha256: str
    let_go_sha256: str = ""
    """Of what stands there for a moment while it is taken back."""


class Record(msgspec.Struct):
    engine: str
    mirror: str
    registries: list[str]
    files: list[FileRecord]
    created_dirs: list[str]
    """Deepest first."""
    format: int = FORMAT

    def file(self, path: Path) -> FileRecord | None:
        return next((f for f in self.files if f.path == str(path)), None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def load(directory: Path, engine: str) -> Record | None:
    """Return what is kept of `engine`; raise ConfigError for a damaged record."""
    path = directory / f"{engine}.json"
    try:
        record = msgspec.json.decode(path.read_bytes(), type=Record)
    except FileNotFoundError:
        return None
    except msgspec.DecodeError as error:
        raise ConfigError(
            f"{path} is damaged: {error}; take the engine's change back by hand and remove it"
        ) from None
    if record.format != FORMAT:
        raise ConfigError(f"{path} is of another version of p2pdist (format {record.format})")
    return record


def load_others(directory: Path, engine: str) -> list[Record]:
    """The records of all engines but `engine`."""
    names = sorted(path.stem for path in directory.glob("*.json") if path.stem != engine)
    return [record for name in names if (record := load(directory, name)) is not None]


def save(directory: Path, record: Record) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    write_file(directory / f"{record.engine}.json", msgspec.json.encode(record), 0o600)


def forget(directory: Path, engine: str) -> None:
    (directory / f"{engine}.json").unlink(missing_ok=True)


def write_file(path: Path, data: bytes, new_mode: int = 0o644) -> None:
    """Replace a file in one step, with the mode and owner that it had; a link stays a link."""
    target = path.resolve()
    try:
        had = target.stat()
    except FileNotFoundError:
        had = None
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(descriptor, had.st_mode & 0o7777 if had else new_mode)
            if had is not None and (had.st_uid, had.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, had.st_uid, had.st_gid)
            file.flush()
            os.fsync(descriptor)
        Path(name).replace(target)
        sync_directory(target.parent)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
