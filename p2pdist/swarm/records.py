"""Signed records that were checked already: each comes once from every neighbour."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.statements import Keyring, RetiredKey, Statement, signer_of

# By their bytes; a signature costs 100 µs.
OPENED_RECORDS_MAX: Final = 16384
# Of keys that are believed no more: who passes them on is no liar, and may do so at any rate.
RETIRED_RECORDS_MAX: Final = 1024


class OpenedRecords:
    """Opens records with the keys of this host."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._opened: LRUCache[bytes, Statement] = LRUCache(OPENED_RECORDS_MAX)
        self._retired: LRUCache[bytes, tuple[str, Statement]] = LRUCache(RETIRED_RECORDS_MAX)

    def keys_changed(self) -> None:
        """What keys signed that are not believed any more was not checked."""
        for record in list(self._opened):
            if not self._keyring.knows(signer_of(record)):
                del self._opened[record]
        self._retired.clear()

    def open(self, record: bytes) -> Statement:
        """Return what a proxy said; raise PeerFault when none of ours said it."""
        if (statement := self._opened.get(record)) is not None:
            return statement
        if (retired := self._retired.get(record)) is not None:
            raise RetiredKey(*retired)
        try:
            statement = self._opened[record] = self._keyring.open(record)
        except RetiredKey as error:
            self._retired[record] = error.signer, error.statement
            raise
        return statement
