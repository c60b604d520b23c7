from __future__ import annotations

from random import Random

from p2pdist.model.control import REVOCATIONS_MAX
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.statements import Keyring, Revocation, Seal, Signer
from p2pdist.tracker.core.counters import TrackerCounters
from p2pdist.tracker.core.revocations import Revocations
from tests.tracker.hosts import key

SIGNER = Signer.generate()


def revocations(kept_max: int = 4096) -> Revocations:
    keyring = Keyring([SIGNER.public_key_bytes])
    return Revocations(keyring, TrackerCounters(), kept_max=kept_max)


def record(number: int = 0, issued_at_s: int = 0) -> bytes:
    map_id = MapId(number.to_bytes(16))
    return SIGNER.sign(Revocation(Digest(key()), map_id, issued_at_s))


def test_a_signed_revocation_is_kept_once() -> None:
    kept = revocations()

    assert kept.add([record()]) == [record()]
    assert kept.add([record(), record(issued_at_s=5)]) == []
    assert list(kept.batches()) == [[record()]]


def test_a_stranger_revokes_nothing() -> None:
    kept = revocations()
    forged = Signer.generate().sign(Revocation(Digest(key()), MapId(bytes(16)), 0))

    assert kept.add([forged, b"", record()[:-1]]) == []
    assert kept._counters.revocations_refused_total == 3


def test_another_statement_is_no_revocation() -> None:
    kept = revocations()

    assert kept.add([SIGNER.sign(Seal(Digest(key()), MapId(bytes(16)), 1, bytes(32)))]) == []


def test_the_oldest_makes_room() -> None:
    kept = revocations(kept_max=2)

    kept.add([record(1), record(2), record(3)])

    assert list(kept.batches()) == [[record(2), record(3)]]


def test_what_is_known_again_is_what_is_kept() -> None:
    rng, kept = Random(1), revocations(kept_max=3)
    for _ in range(100):
        kept.add([record(rng.randrange(6), rng.randrange(2)) for _ in range(rng.randrange(4))])
        kept.validate()


def test_batches_fit_into_a_message() -> None:
    kept = revocations()
    kept.add([record(i) for i in range(REVOCATIONS_MAX + 1)])

    assert [len(batch) for batch in kept.batches()] == [REVOCATIONS_MAX, 1]


def test_what_a_dropped_key_signed_is_told_to_nobody() -> None:
    keyring, other = Keyring([SIGNER.public_key_bytes]), Signer.generate()
    kept = Revocations(keyring, TrackerCounters())
    kept.add([record(1)])
    keyring.replace([other.public_key_bytes])
    fresh = other.sign(Revocation(Digest(key()), MapId((2).to_bytes(16)), 0))
    kept.add([fresh])

    kept.keys_changed()

    assert list(kept.batches()) == [[fresh]]
    kept.validate()
    assert kept.add([record(1)]) == []
