"""What an installation changed, kept so that it can be taken back byte for byte.

The record is written before any of the engine's files: an installation that was killed at any point
can be done again or taken back.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.engines.options import EarlyStarts
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree, absolute

FORMAT: Final = 1
DEFAULT_DIR: Final = Path("/var/lib/p2pdist/runtime")
# It holds the originals of a few files, in base64.
RECORD_BYTES_MAX: Final = 128 << 20


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
    early: EarlyStarts | None = None

    def file(self, path: Path) -> FileRecord | None:
        return next((f for f in self.files if f.path == str(path)), None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True)
class Records:
    """What is kept of all engines, in `directory`. All methods raise ConfigError and OSError."""

    tree: Tree
    directory: Path

    def load(self, engine: str) -> Record | None:
        """Return what is kept of `engine`. Only a record that nobody else can have written counts:
        it says what to write where, as root."""
        path = self._path(engine)
        data = self.tree.read(path, size_max=RECORD_BYTES_MAX, follow=False, check=_ours_alone)
        if data is None:
            return None
        try:
            record = msgspec.json.decode(data, type=Record)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ConfigError(
                f"{path} is damaged: {error}; take the engine's change back by hand and remove it"
            ) from None
        if record.format != FORMAT:
            raise ConfigError(f"{path} is of another version of p2pdist (format {record.format})")
        if record.engine != engine:
            raise ConfigError(f"{path} is of another engine ({record.engine[:20]!r})")
        return record

    def load_others(self, engine: str) -> list[Record]:
        """The records of all engines but `engine`."""
        names = [path.stem for path in self.tree.listed(self.directory) if path.suffix == ".json"]
        loaded = [self.load(name) for name in names if name != engine]
        return [record for record in loaded if record is not None]

    def save(self, record: Record) -> None:
        data = msgspec.json.encode(record)
        self.tree.write(self._path(record.engine), data, 0o600, follow=False, check=_ours_alone)

    def forget(self, engine: str) -> None:
        """The directory goes with the last record, unless it is one that somebody chose."""
        self.tree.unlink(self._path(engine), follow=False)
        if self.directory == default_dir(self.tree.top):
            with contextlib.suppress(OSError):  # another engine's record is there
                self.tree.rmdir(self.directory)

    def _path(self, engine: str) -> Path:
        return self.directory / f"{engine}.json"


def default_dir(top: Path) -> Path:
    return top / DEFAULT_DIR.relative_to("/")


def records_at(directory: Path, tree: Tree) -> Records:
    """Those in `directory`, which is in `tree` unless the caller chose a place elsewhere."""
    directory = absolute(directory)
    inside = directory.is_relative_to(tree.top)
    return Records(tree if inside else Tree(Path("/")), directory)


def _ours_alone(path: Path, status: os.stat_result) -> None:
    if status.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            f"{path} belongs to another user (uid {status.st_uid}), who could have written "
            f"anything there; look into it, then run: chown root {path}"
        )
    if status.st_mode & 0o022:
        raise ConfigError(
            f"{path} may be written by others; look into it, then run: chmod go-w {path}"
        )
