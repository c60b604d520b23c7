"""By which rule a tag statement is believed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.model.clocks import CLOCK_TOLERANCE_S
from p2pdist.model.ids import MapId, digest_of, tag_key
from p2pdist.model.statements import Keyring, MapHead, Signer, TagStatement
from p2pdist.model.tags import (
    NotBelieved,
    TagRecord,
    age_at_hearing_s,
    believe_tag,
    newest,
    open_tag,
)

A, B, STRANGER = Signer.generate(), Signer.generate(), Signer.generate()
KEYRING = Keyring([A.public_key_bytes, B.public_key_bytes])
KEY = tag_key("docker.io", "library/app", "1")
DIGEST = digest_of(b"a manifest")
NOW_S = 1_700_000_000
LIFETIME_S = 24 * 3600


def record(issued_s: int = NOW_S, *, signer: Signer = A, **changes: object) -> bytes:
    fields: dict[str, object] = {
        "key": KEY,
        "digest": DIGEST,
        "media_type": "application/vnd.oci.image.manifest.v1+json",
        "size_bytes": 10,
        "issued_at_s": issued_s,
        "expires_at_s": issued_s + LIFETIME_S,
        **changes,
    }
    return signer.sign(TagStatement(**fields))  # type: ignore[arg-type]  # one of each


def told(issued_s: int = NOW_S, *, signer: Signer = A) -> TagRecord:
    return open_tag(KEYRING, KEY, record(issued_s, signer=signer))


def test_a_statement_of_a_stranger_is_a_fault_of_who_says_it() -> None:
    with pytest.raises(PeerFault):
        open_tag(KEYRING, KEY, record(signer=STRANGER))


@pytest.mark.parametrize(
    "foreign",
    [
        record(key=tag_key("docker.io", "library/app", "2")),
        A.sign(MapHead(DIGEST, MapId(b"m" * 16), 1 << 20, 1 << 18, NOW_S)),
    ],
    ids=["another tag", "a map"],
)
def test_a_statement_about_something_else_is_of_no_use(foreign: bytes) -> None:
    with pytest.raises(NotBelieved):
        open_tag(KEYRING, KEY, foreign)


def test_another_manifests_statement_is_not_believed() -> None:
    with pytest.raises(NotBelieved, match="another manifest"):
        believe_tag(told(), now_unix_s=NOW_S, digest=digest_of(b"other"))


@pytest.mark.parametrize(
    ("age_s", "believed"),
    [
        (-10 * LIFETIME_S, True),  # our clock is behind: that alone is no reason
        (0, True),
        (LIFETIME_S, True),
        (LIFETIME_S + CLOCK_TOLERANCE_S - 1, True),
        (LIFETIME_S + CLOCK_TOLERANCE_S, False),
        (90 * LIFETIME_S, False),
    ],
)
def test_a_statement_ends_with_a_tolerance(age_s: int, believed: bool) -> None:
    assert holds(told(), now_s=NOW_S + age_s) is believed


@pytest.mark.parametrize(
    ("signer", "behind_s", "believed"),
    [
        (A, 0, True),
        (A, 1, False),
        (A, -1, True),
        (B, CLOCK_TOLERANCE_S, True),
        (B, CLOCK_TOLERANCE_S + 1, False),
    ],
)
def test_nothing_older_than_what_is_held_counts(
    signer: Signer, behind_s: int, believed: bool
) -> None:
    older = told(NOW_S - 3600 - behind_s, signer=signer)

    assert holds(older, held=told(NOW_S - 3600)) is believed


def test_what_is_held_sets_the_order_even_when_its_time_is_up() -> None:
    held = told(NOW_S - 2 * LIFETIME_S)
    older_but_alive = open_tag(
        KEYRING, KEY, record(NOW_S - 3 * LIFETIME_S, expires_at_s=NOW_S + 60)
    )

    assert not holds(older_but_alive, held=held)


def test_a_statement_from_the_future_does_not_freeze_its_tag() -> None:
    """A proxy whose clock was a day ahead, until it was set right."""
    held = told(NOW_S + LIFETIME_S)

    assert holds(told(NOW_S), held=held)


def holds(tag: TagRecord, *, now_s: float = NOW_S, held: TagRecord | None = None) -> bool:
    try:
        return believe_tag(tag, now_unix_s=now_s, held=held) is tag
    except NotBelieved:
        return False


@given(st.lists(st.integers(NOW_S - LIFETIME_S, NOW_S), min_size=1, max_size=20))
def test_in_whatever_order_words_come_the_latest_stays(issued: list[int]) -> None:
    held: TagRecord | None = None
    for issued_s in issued:
        try:
            held = believe_tag(told(issued_s), now_unix_s=NOW_S, held=held)
        except NotBelieved:
            continue

    assert held is not None
    assert held.statement.issued_at_s == max(issued)


def test_the_newest_of_several() -> None:
    assert newest([]) is None
    assert newest([told(NOW_S - 5), told(NOW_S - 1), told(NOW_S - 9)]) == told(NOW_S - 1)


def test_an_age_is_never_negative() -> None:
    assert age_at_hearing_s(told(), NOW_S + 7.5) == 7.5
    assert age_at_hearing_s(told(), NOW_S - LIFETIME_S) == 0.0
