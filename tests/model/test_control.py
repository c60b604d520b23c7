"""Keys of swarms and leases, and the bounds of what hosts and trackers say."""

from __future__ import annotations

import msgspec
import pytest

from p2pdist.model.control import (
    DELTAS_MAX,
    PROOF_PART_BYTES_MAX,
    PROOF_PARTS_MAX,
    Announce,
    Delta,
    Join,
    PrewarmReport,
    Proof,
    ProofPart,
    Prove,
    digest_key,
    encoder,
    from_tracker_decoder,
    origin_key,
    parse_lease_key,
    parse_swarm_key,
    tag_swarm_key,
    to_tracker_decoder,
)
from p2pdist.model.ids import digest_of, tag_key

DIGEST = digest_of(b"blob")
TAG = tag_key("docker.io", "library/app", "1")


def test_keys_of_digests_and_tags_come_back() -> None:
    for key in (digest_key(DIGEST), tag_swarm_key(TAG)):
        assert parse_swarm_key(key) == parse_lease_key(key) == key


def test_the_right_to_read_the_registry_is_another_lease_and_no_swarm() -> None:
    key = origin_key(DIGEST)

    assert parse_lease_key(key) == key != digest_key(DIGEST)
    with pytest.raises(ValueError, match="not a digest"):
        parse_swarm_key(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sha256:",
        "tag:",
        f"tag:{'0' * 63}",
        f"tag:{'0' * 65}",
        f"tag:{'A' * 64}",
        f"tag:{'0' * 64}\n",
        "origin:",
        f"origin:origin:{DIGEST}",
        f"{DIGEST}\n",
    ],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    for parse in (parse_swarm_key, parse_lease_key):
        with pytest.raises(ValueError, match="not a digest"):
            parse(text)


def test_each_side_reads_what_the_other_says_and_nothing_else() -> None:
    told = Announce([Delta(DIGEST, 3, False)], full=True)
    asked = Prove(1, bytes(32), [ProofPart(DIGEST, 0, PROOF_PART_BYTES_MAX)] * PROOF_PARTS_MAX)

    assert to_tracker_decoder.decode(encoder.encode(told)) == told
    assert from_tracker_decoder.decode(encoder.encode(asked)) == asked
    with pytest.raises(msgspec.ValidationError):
        to_tracker_decoder.decode(encoder.encode(asked))
    with pytest.raises(msgspec.ValidationError):
        from_tracker_decoder.decode(encoder.encode(told))


@pytest.mark.parametrize(
    "message",
    [
        Announce([Delta(DIGEST, 1, True)] * (DELTAS_MAX + 1)),
        Announce([Delta(DIGEST, -1, True)]),
        Announce([Delta("x" * 161, 1, True)]),
        Join(1, DIGEST, exclude=["h"] * 33),
        Proof(1, bytes(33)),
        PrewarmReport("UPPER", "fetched"),
        PrewarmReport("job", "fetched", reason="x" * 513),
    ],
)
def test_a_host_that_says_too_much_is_not_read(message: msgspec.Struct) -> None:
    with pytest.raises(msgspec.ValidationError):
        to_tracker_decoder.decode(encoder.encode(message))


@pytest.mark.parametrize(
    "message",
    [
        Prove(1, bytes(31), []),
        Prove(1, bytes(32), [ProofPart(DIGEST, 0, PROOF_PART_BYTES_MAX + 1)]),
        Prove(1, bytes(32), [ProofPart(DIGEST, 0, 1)] * (PROOF_PARTS_MAX + 1)),
    ],
)
def test_a_tracker_that_asks_too_much_is_not_read(message: msgspec.Struct) -> None:
    with pytest.raises(msgspec.ValidationError):
        from_tracker_decoder.decode(encoder.encode(message))
