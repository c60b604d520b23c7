"""Signed records that were checked already: each comes once from every neighbour."""

from __future__ import annotations

from typing import Final

from cachetools import LRUCache

from p2pdist.model.statements import Keyring, Statement, signer_of

# By their bytes; a signature costs 100 µs.
OPENED_RECORDS_MAX: Final = 16384


class OpenedRecords:
    """Opens records with the keys of this host."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._opened: LRUCache[bytes, Statement] = LRUCache(OPENED_RECORDS_MAX)

    def keys_changed(self) -> None:
        """What keys signed that are not believed any more was not checked."""
        for record in list(self._opened):
            if not self._keyring.knows(signer_of(record)):
                del self._opened[record]

    def open(self, record: bytes) -> Statement:
        """Return what a proxy said; raise PeerFault when none of ours said it."""
        statement = self._opened.get(record)
        if statement is None:
            statement = self._keyring.open(record)
            self._opened[record] = statement
        return statement
