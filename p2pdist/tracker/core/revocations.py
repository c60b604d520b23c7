"""Revocations of late: checked like any reader would, kept to tell hosts that connect."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Final

from p2pdist.errors import PeerFault
from p2pdist.model.control import REVOCATIONS_MAX
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.statements import Keyring, Revocation, signer_of
from p2pdist.tracker.core.counters import TrackerCounters

# Full: the oldest goes. A revocation is a rare event (a registry served wrong bytes).
REVOCATIONS_KEPT_MAX: Final = 4096


class Revocations:
    def __init__(
        self, keyring: Keyring, counters: TrackerCounters, *, kept_max: int = REVOCATIONS_KEPT_MAX
    ) -> None:
        self._keyring = keyring
        self._counters = counters
        self._kept_max = kept_max
        self._records: OrderedDict[tuple[Digest, MapId], bytes] = OrderedDict()
        self._seen: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, records: list[bytes]) -> list[bytes]:
        """Keep those of `records` that are new and hold; return them.

        A record that does not hold is counted, no more: while keys are rotated, a proxy of ours
        may sign with one that the tracker does not know yet.
        """
        return [record for record in records if self._add(record)]

    def keys_changed(self) -> None:
        """What keys signed that are not believed any more is told to nobody."""
        for key, record in list(self._records.items()):
            if not self._keyring.knows(signer_of(record)):
                del self._records[key]
                self._seen.discard(record)

    def batches(self) -> Iterator[list[bytes]]:
        """All that are kept, in lists that fit into a message."""
        records = list(self._records.values())
        for start in range(0, len(records), REVOCATIONS_MAX):
            yield records[start : start + REVOCATIONS_MAX]

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        assert len(self._records) <= self._kept_max
        assert self._seen == set(self._records.values())
        assert len(self._seen) == len(self._records)

    def _add(self, record: bytes) -> bool:
        if record in self._seen:
            return False
        try:
            statement = self._keyring.open(record)
        except PeerFault:
            self._counters.revocations_refused_total += 1
            return False
        if not isinstance(statement, Revocation):
            self._counters.revocations_refused_total += 1
            return False
        key = (statement.digest, statement.map_id)
        if key in self._records:
            return False
        self._records[key] = record
        self._seen.add(record)
        self._counters.revocations_total += 1
        if len(self._records) > self._kept_max:
            self._seen.discard(self._records.popitem(last=False)[1])
        return True
