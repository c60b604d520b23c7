"""A record is checked once, whoever passes it on and however often."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.model.ids import HostId
from p2pdist.model.private_digests import Scope
from p2pdist.model.statements import Keyring, RetiredKey, Signer, Statement, Ticket
from p2pdist.swarm.records import OpenedRecords

SIGNER, NEXT = Signer.generate(), Signer.generate()
SAID = Ticket(Scope(bytes(16)), HostId("a" * 32), 1)


class Counting(Keyring):
    """Counts the signatures that are looked at."""

    looked = 0

    def open(self, record: bytes) -> Statement:
        self.looked += 1
        return super().open(record)


@pytest.fixture
def keyring() -> Counting:
    return Counting([SIGNER.public_key_bytes])


def test_what_was_opened_is_known(keyring: Counting) -> None:
    records, record = OpenedRecords(keyring), SIGNER.sign(SAID)

    assert [records.open(record) for _ in range(3)] == [SAID] * 3
    assert keyring.looked == 1


def test_what_a_retired_key_signed_is_looked_at_once_as_well(keyring: Counting) -> None:
    """Nobody is banned for it, so it must not cost more than to read it."""
    records, record = OpenedRecords(keyring), SIGNER.sign(SAID)
    keyring.replace([NEXT.public_key_bytes])
    records.keys_changed()

    for _ in range(3):
        with pytest.raises(RetiredKey) as retired:
            records.open(record)
        assert retired.value.statement == SAID
    assert keyring.looked == 1


def test_other_keys_have_all_looked_at_anew(keyring: Counting) -> None:
    records, record = OpenedRecords(keyring), SIGNER.sign(SAID)
    records.open(record)
    keyring.replace([NEXT.public_key_bytes])
    records.keys_changed()
    with pytest.raises(RetiredKey):
        records.open(record)

    keyring.replace([NEXT.public_key_bytes, SIGNER.public_key_bytes])
    records.keys_changed()
    assert records.open(record) == SAID


def test_a_lie_is_one_each_time(keyring: Counting) -> None:
    records, record = OpenedRecords(keyring), bytearray(SIGNER.sign(SAID))
    record[-1] ^= 1
    for _ in range(2):
        with pytest.raises(PeerFault, match="bad signature"):
            records.open(bytes(record))
