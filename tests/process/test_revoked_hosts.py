"""Records of revoked hosts: whose are believed, what they say; nothing is ever forgotten."""

from __future__ import annotations

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.control import HOST_RECORD_BYTES_MAX, HOST_RECORDS_MAX
from p2pdist.model.ids import HostId
from p2pdist.process import revoked_hosts as subject
from p2pdist.process.ca import Ca, new_ca
from p2pdist.process.certificates import fingerprint
from p2pdist.process.revoked_hosts import (
    HOSTS_MAX,
    HOSTS_OF_RECORD_MAX,
    Revoked,
    RevokedHosts,
    UnknownCa,
    judge,
    open_revocation,
    sign_revocation,
)

CA, OTHER = new_ca(1e9), new_ca(1e9)
A, B, C = (HostId(letter * 32) for letter in "abc")


def der(ca: Ca) -> bytes:
    return ca.certificate.public_bytes(Encoding.DER)


def ids(count: int, first: int = 0) -> list[HostId]:
    return [HostId(f"{number:032x}") for number in range(first, first + count)]


def test_a_record_says_whom_and_when() -> None:
    record = sign_revocation(CA, [A, B], 1_700_000_000.9)
    assert open_revocation(record, [der(OTHER), der(CA)]) == Revoked(
        frozenset({A, B}), 1_700_000_000
    )


def test_the_largest_record_fits() -> None:
    record = sign_revocation(CA, ids(HOSTS_OF_RECORD_MAX), 1e9)
    assert len(record) <= HOST_RECORD_BYTES_MAX
    assert len(open_revocation(record, [der(CA)]).hosts) == HOSTS_OF_RECORD_MAX
    with pytest.raises(msgspec.ValidationError):
        sign_revocation(CA, ids(HOSTS_OF_RECORD_MAX + 1), 1e9)


def test_a_record_of_another_ca_is_told_from_a_false_one() -> None:
    record = sign_revocation(OTHER, [A], 1e9)
    with pytest.raises(UnknownCa):
        open_revocation(record, [der(CA)])


def test_whoever_signs_under_anothers_name_is_not_believed() -> None:
    forged = Ca(CA.certificate, OTHER.key)
    with pytest.raises(ValueError, match="does not hold"):
        open_revocation(sign_revocation(forged, [A], 1e9), [der(CA)])


def test_what_a_ca_signed_for_another_purpose_is_no_record() -> None:
    said = msgspec.msgpack.encode([fingerprint(der(CA))[:8], 1, bytes.fromhex(A)])
    signature = CA.key.sign(said, ec.ECDSA(SHA256()))
    with pytest.raises(ValueError, match="does not hold"):
        open_revocation(msgspec.msgpack.encode([said, signature]), [der(CA)])


@given(st.binary(max_size=300) | st.integers(0, 200).map(lambda at: _damaged(at)))
def test_whatever_else_comes_is_malformed_or_does_not_hold(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"record|hold|believed"):
        open_revocation(data, [der(CA)])


def _damaged(at: int) -> bytes:
    """A good record with one bit changed."""
    record = bytearray(sign_revocation(CA, [A], 1e9))
    record[at % len(record)] ^= 1
    return bytes(record)


@pytest.mark.parametrize("hosts", [b"", b"x" * 15, b"x" * 33])
def test_half_an_id_is_none(hosts: bytes) -> None:
    said = msgspec.msgpack.encode([fingerprint(der(CA))[:8], 1, hosts])
    signature = CA.key.sign(subject._PURPOSE + said, ec.ECDSA(SHA256()))
    with pytest.raises(ValueError, match="no whole host ids"):
        open_revocation(msgspec.msgpack.encode([said, signature]), [der(CA)])


def test_a_record_that_is_too_long_is_not_looked_at() -> None:
    with pytest.raises(ValueError, match="bytes"):
        open_revocation(b"x" * (HOST_RECORD_BYTES_MAX + 1), [der(CA)])


# --- what a daemon knows -------------------------------------------------------------------------


def told(known: RevokedHosts, records: list[bytes], *cas: Ca) -> frozenset[HostId]:
    fresh = known.take(judge(known.unknown(records), [der(ca) for ca in cas]))
    known.validate()
    return fresh


def test_it_knows_whom_and_since_when() -> None:
    known = RevokedHosts()
    assert told(known, [sign_revocation(CA, [A], 1_700_000_000)], CA) == {A}
    assert (A in known, B in known, len(known)) == (True, False, 1)
    assert known.why(A) == f"host {A} was revoked, 2023-11-14 22:13 UTC"
    assert known.why(B) == ""
    assert known.since == {A: 1_700_000_000}


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), max_size=6))
def test_whatever_the_order_and_however_often_all_of_it_counts(
    order: list[int], again: list[int]
) -> None:
    made = [sign_revocation(CA, [host], 1e9 + n) for n, host in enumerate((A, B, C, A))]
    known = RevokedHosts()
    for number in (*order, *again):
        told(known, [made[number]], CA)
    assert set(known.since) == {A, B, C}
    assert sorted(known.records) == sorted(made)


def test_what_is_known_is_not_looked_at_again() -> None:
    known, record = RevokedHosts(), sign_revocation(CA, [A], 1e9)
    told(known, [record], CA)
    assert known.unknown([record, record]) == []


def test_a_record_of_a_ca_that_is_taken_up_later_counts_from_then_on() -> None:
    known, record = RevokedHosts(), sign_revocation(OTHER, [A], 1e9)
    assert told(known, [record], CA) == frozenset()
    assert (A in known, known.records, known.trouble) == (False, [], "")

    assert told(known, [], CA, OTHER) == {A}
    assert known.unknown([]) == []


def test_one_that_does_not_hold_takes_no_other_with_it() -> None:
    known = RevokedHosts()
    forged = sign_revocation(Ca(CA.certificate, OTHER.key), [B], 1e9)
    assert told(known, [forged, sign_revocation(CA, [A], 1e9)], CA) == {A}
    assert known.trouble == "the signature of the record does not hold"


def test_it_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    known = RevokedHosts()
    parts = [ids(HOSTS_OF_RECORD_MAX, at) for at in range(0, HOSTS_MAX, HOSTS_OF_RECORD_MAX)]
    told(known, [sign_revocation(CA, part, 1e9) for part in parts], CA)
    assert (len(known), known.trouble) == (HOSTS_MAX, "")
    assert told(known, [sign_revocation(CA, [A], 1e9)], CA) == frozenset()
    assert "time for another CA" in known.trouble

    strangers = [sign_revocation(OTHER, [A], 1e9 + n) for n in range(HOST_RECORDS_MAX + 1)]
    told(known, strangers, CA)
    few = RevokedHosts()
    told(few, [sign_revocation(CA, [A], 1e9 + n) for n in range(HOST_RECORDS_MAX + 1)], CA)
    assert len(few.records) == HOST_RECORDS_MAX
