"""Signed statements: what reads back, and that nothing else does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault, UnknownKey
from p2pdist.model.ids import Digest, HostId, MapId, TagKey
from p2pdist.model.private_digests import SCOPE_BYTES, Scope
from p2pdist.model.statements import (
    RECORD_BYTES_MAX,
    RETIRED_MAX,
    HashBatch,
    Keyring,
    MapHead,
    RetiredKey,
    Revocation,
    Seal,
    Signer,
    Statement,
    TagStatement,
    Ticket,
)

SIGNER = Signer.generate()
KEYRING = Keyring([SIGNER.public_key_bytes])
HEAD = MapHead(Digest(f"sha256:{'a' * 64}"), MapId(b"m" * 16), 3 << 20, 1 << 18, 1)

digests = st.binary(min_size=32, max_size=32).map(lambda b: Digest(f"sha256:{b.hex()}"))
map_ids = st.binary(min_size=16, max_size=16).map(MapId)
u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
hashes = st.integers(1, 64).flatmap(lambda n: st.binary(min_size=32 * n, max_size=32 * n))
statements = st.one_of(
    st.builds(MapHead, digests, map_ids, u64, u32, u64),
    st.builds(HashBatch, map_ids, u32, hashes),
    st.builds(Seal, digests, map_ids, u32, st.binary(min_size=32, max_size=32)),
    st.builds(Revocation, digests, map_ids, u64),
    st.builds(
        TagStatement,
        st.binary(min_size=32, max_size=32).map(TagKey),
        digests,
        st.text("abcdefghijklmnopqrstuvwxyz./+-", max_size=100),
        u64,
        u64,
        u64,
    ),
    st.builds(
        Ticket,
        st.binary(min_size=SCOPE_BYTES, max_size=SCOPE_BYTES).map(Scope),
        st.binary(min_size=16, max_size=16).map(lambda b: HostId(b.hex())),
        u64,
    ),
)


@given(statements)
def test_a_statement_reads_back(statement: Statement) -> None:
    record = SIGNER.sign(statement)

    assert KEYRING.open(record) == statement
    assert len(record) <= RECORD_BYTES_MAX
    assert SIGNER.made(record)


@given(statements, st.integers(0, 1 << 16), st.integers(1, 255))
def test_any_changed_byte_is_noticed(statement: Statement, at: int, mask: int) -> None:
    record = bytearray(SIGNER.sign(statement))
    record[at % len(record)] ^= mask

    with pytest.raises(PeerFault) as caught:
        KEYRING.open(bytes(record))
    assert caught.value.reason == "map"


@given(statements)
def test_another_key_is_not_believed(statement: Statement) -> None:
    stranger = Signer.generate()

    with pytest.raises(PeerFault, match="unknown key"):
        KEYRING.open(stranger.sign(statement))
    assert not SIGNER.made(stranger.sign(statement))


@given(st.binary(max_size=5000))
def test_foreign_bytes_are_a_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        KEYRING.open(data)


def test_two_keys_may_be_believed_while_one_is_replaced() -> None:
    old, new = Signer.generate(), Signer.generate()
    keyring = Keyring([old.public_key_bytes, new.public_key_bytes])
    statement = Revocation(Digest("sha256:" + "0" * 64), MapId(b"m" * 16), 1)

    assert keyring.open(old.sign(statement)) == keyring.open(new.sign(statement)) == statement


def test_a_key_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        Keyring([b"short"])


def test_a_derived_key_is_the_keys_own_and_the_purposes() -> None:
    assert SIGNER.derived("a") == SIGNER.derived("a")
    assert len({SIGNER.derived("a"), SIGNER.derived("b"), Signer.generate().derived("a")}) == 3
    assert len(SIGNER.derived("a")) == 32


def test_what_a_key_signed_that_is_believed_no_more_is_told_from_a_strangers() -> None:
    signers = [Signer.generate() for _ in range(RETIRED_MAX + 2)]
    keyring = Keyring([signers[0].public_key_bytes])
    for signer in signers[1:]:
        keyring.replace([signer.public_key_bytes])

    assert keyring.open(signers[-1].sign(HEAD)) == HEAD
    with pytest.raises(RetiredKey) as retired:
        keyring.open(signers[-2].sign(HEAD))
    assert retired.value.statement == HEAD
    for stranger in (signers[0], Signer.generate()):  # it was too long ago for the first
        with pytest.raises(UnknownKey) as unknown:
            keyring.open(stranger.sign(HEAD))
        assert not isinstance(unknown.value, RetiredKey)


def test_a_retired_key_has_to_have_signed_it_all_the_same() -> None:
    old, new = Signer.generate(), Signer.generate()
    keyring = Keyring([old.public_key_bytes])
    keyring.replace([new.public_key_bytes])
    record = bytearray(old.sign(HEAD))
    record[-1] ^= 1

    with pytest.raises(PeerFault, match="bad signature"):
        keyring.open(bytes(record))


def test_a_retired_key_may_be_believed_again() -> None:
    old, new = Signer.generate(), Signer.generate()
    keyring = Keyring([old.public_key_bytes])
    keyring.replace([new.public_key_bytes])
    keyring.replace([new.public_key_bytes, old.public_key_bytes])

    assert keyring.open(old.sign(HEAD)) == HEAD


def test_a_signer_turns_to_another_key() -> None:
    signer, other = Signer.generate(), Signer.generate()
    before = signer.sign(HEAD)

    signer.turn_to(other)

    assert other.made(signer.sign(HEAD))
    assert not signer.made(before)
    assert signer.public_key_bytes == other.public_key_bytes
