"""Maps that were taken back: bounded, kept over restarts, so that none of them can be replayed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from p2pdist.errors import PeerFault, UnknownKey
from p2pdist.model.ids import MapId
from p2pdist.model.statements import Keyring, Revocation, signer_of
from p2pdist.process.files import read_file, write_whole
from p2pdist.store.records import decode_records, encode_record

REVOCATIONS_MAX: Final = 4096
_FILE_BYTES_MAX: Final = REVOCATIONS_MAX * 256


class Revocations:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._records: OrderedDict[MapId, bytes] = OrderedDict()
        self._foreign: list[bytes] = []
        """Of keys that are not believed now; a mistyped one is set right some day."""

    def __contains__(self, map_id: MapId) -> bool:
        return map_id in self._records

    def records(self) -> list[bytes]:
        return list(self._records.values())

    def note(self, map_id: MapId, record: bytes) -> None:
        """In force at once; `save` makes it last."""
        with self._lock:
            self._records[map_id] = record
            if len(self._records) > REVOCATIONS_MAX:
                self._records.popitem(last=False)

    def save(self) -> None:
        """Blocking. Raises OSError."""
        with self._lock:
            room = REVOCATIONS_MAX - len(self._records)
            kept = [*self._foreign[:room], *self._records.values()]
            data = b"".join(encode_record(record) for record in kept)
            write_whole(self._path, data, points="store")

    def load(self, keyring: Keyring) -> None:
        """Blocking. Records of keys that are not trusted are in no force."""
        self._sort(keyring, decode_records(read_file(self._path, _FILE_BYTES_MAX) or b""))

    def sort(self, keyring: Keyring) -> None:
        """Other keys are trusted now. Blocking."""
        with self._lock:
            fresh = [r for r in self._foreign if keyring.knows(signer_of(r))]
            self._foreign = [r for r in self._foreign if not keyring.knows(signer_of(r))]
            for map_id, record in list(self._records.items()):
                if not keyring.knows(signer_of(record)):
                    del self._records[map_id]
                    self._foreign.append(record)
            self._sort(keyring, fresh)

    def _sort(self, keyring: Keyring, records: Iterable[bytes]) -> None:
        for record in records:
            try:
                statement = keyring.open(record)
            except UnknownKey:
                self._foreign.append(record)
                continue
            except PeerFault:
                continue
            if isinstance(statement, Revocation):
                self._records[statement.map_id] = record
