"""What proxies signed of tags and of layers' indexes, by its key: bounded, the oldest go.

Each kind for itself: an image has one tag and ten layers, and an index that was forgotten is made
anew, but a tag that was forgotten has to be asked for.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Final

from p2pdist.model.ids import TagKey
from p2pdist.model.statements import RECORD_BYTES_MAX
from p2pdist.process.files import read_file, write_whole
from p2pdist.store.records import decode_records, encode_record

STATEMENTS_MAX: Final = 10_000
TAGS, INDEXES = "statements", "indexes"
"""The directories of the kinds."""
_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Statements:
    """Both kinds; a key belongs to one of them, whoever asks need not know to which."""

    def __init__(self, root: Path, *, of_each_max: int = STATEMENTS_MAX) -> None:
        self._tags = StatementFiles(root / TAGS, of_each_max)
        self._indexes = StatementFiles(root / INDEXES, of_each_max)

    def keys(self) -> list[TagKey]:
        return self._tags.keys() + self._indexes.keys()

    def put(self, key: TagKey, record: bytes, index: bool) -> None:
        """Blocking. `index`: it says which index a layer has. Raises OSError."""
        (self._indexes if index else self._tags).put(key, record)

    def get(self, key: TagKey) -> bytes | None:
        """Blocking."""
        return self._tags.get(key) or self._indexes.get(key)

    def drop_missing(self) -> list[TagKey]:
        """Blocking. Forget and return those whose files were taken away from below."""
        return self._tags.drop_missing() + self._indexes.drop_missing()

    def load(self) -> None:
        """Blocking."""
        self._tags.load()
        self._indexes.load()


class StatementFiles:
    """Those of one kind."""

    def __init__(self, root: Path, at_most: int) -> None:
        self._root = root
        self._at_most = at_most
        self._lock = threading.Lock()
        self._known: OrderedDict[TagKey, None] = OrderedDict()

    def keys(self) -> list[TagKey]:
        with self._lock:
            return list(self._known)

    def put(self, key: TagKey, record: bytes) -> None:
        """Blocking. Raises OSError."""
        write_whole(self._root / key.hex(), encode_record(record), durable=False, points="store")
        with self._lock:
            self._known[key] = None
            self._known.move_to_end(key)
            gone = self._known.popitem(last=False)[0] if len(self._known) > self._at_most else None
        if gone is not None:
            with contextlib.suppress(OSError):  # the new one is there all the same
                (self._root / gone.hex()).unlink()

    def get(self, key: TagKey) -> bytes | None:
        """Blocking."""
        if key not in self._known:
            return None
        raw = read_file(self._root / key.hex(), RECORD_BYTES_MAX + 64)
        records = decode_records(raw or b"")
        return records[0] if records else None

    def drop_missing(self) -> list[TagKey]:
        """Blocking. Forget and return those whose files were taken away from below."""
        gone = [key for key in self.keys() if not (self._root / key.hex()).exists()]
        with self._lock:
            for key in gone:
                self._known.pop(key, None)
        return gone

    def load(self) -> None:
        """Blocking."""
        found = []
        for path in self._root.iterdir():
            if _NAME.fullmatch(path.name):
                found.append(path)
            else:  # left by a write that was cut
                path.unlink(missing_ok=True)
        for path in sorted(found, key=lambda p: p.lstat().st_mtime)[-self._at_most :]:
            self._known[TagKey(bytes.fromhex(path.name))] = None
