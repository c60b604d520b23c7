"""How long a tag is believed; time is a number here."""

from __future__ import annotations

import pytest

from p2pdist.errors import RegistryError
from p2pdist.model.ids import TagKey, digest_of, tag_key
from p2pdist.registry_proxy.core.tags import (
    STALE_IF_ERROR_S,
    Absent,
    Fresh,
    Revalidate,
    TagCache,
    TagEntry,
)

KEY = tag_key("docker.io", "library/app", "1")
GONE = RegistryError(404, "MANIFEST_UNKNOWN", "no such tag")


def entry_at(checked_s: float) -> TagEntry:
    return TagEntry(digest_of(b"manifest"), checked_s, b"statement")


def cache_with(entry: TagEntry, *, soft_ttl_s: float = 30.0) -> TagCache:
    cache = TagCache(soft_ttl_s=soft_ttl_s)
    cache.confirmed(KEY, entry)
    return cache


def test_an_unknown_tag_is_asked_for() -> None:
    assert TagCache().decide(KEY, 0.0) == Revalidate(None)


def test_rc51_a_tag_is_fresh_for_30_s() -> None:
    entry = entry_at(100.0)
    cache = cache_with(entry)

    assert cache.decide(KEY, 129.9) == Fresh(entry)
    assert cache.decide(KEY, 130.0) == Revalidate(entry)


def test_a_ttl_of_0_asks_each_time() -> None:
    entry = entry_at(100.0)

    assert cache_with(entry, soft_ttl_s=0.0).decide(KEY, 100.0) == Revalidate(entry)


def test_rc52_silence_is_bridged_for_24_hours() -> None:
    entry = entry_at(0.0)
    cache = cache_with(entry)

    assert cache.unanswered(KEY, "timeout", STALE_IF_ERROR_S - 1) == entry
    assert cache.unanswered(KEY, "timeout", STALE_IF_ERROR_S) is None


def test_a_tag_beyond_24_hours_is_no_substitute() -> None:
    assert cache_with(entry_at(0.0)).decide(KEY, STALE_IF_ERROR_S) == Revalidate(None)


def test_after_silence_upstream_is_left_alone_for_5_s() -> None:
    entry = entry_at(0.0)
    cache = cache_with(entry)

    cache.unanswered(KEY, "timeout", 100.0)

    assert cache.decide(KEY, 104.9) == Fresh(entry, "timeout")
    assert cache.decide(KEY, 105.0) == Revalidate(entry)


def test_an_answer_ends_the_trouble() -> None:
    cache = cache_with(entry_at(0.0))
    cache.unanswered(KEY, "timeout", 100.0)

    cache.confirmed(KEY, entry_at(101.0))

    assert cache.decide(KEY, 102.0) == Fresh(entry_at(101.0))


def test_rc52_a_refusal_ends_the_old_tag() -> None:
    cache = cache_with(entry_at(0.0))

    cache.refused(KEY, GONE, 10.0)

    assert cache.decide(KEY, 14.9) == Absent(GONE)
    assert cache.decide(KEY, 15.0) == Revalidate(None)
    assert cache.unanswered(KEY, "timeout", 16.0) is None


def test_what_was_known_before_a_restart_counts_by_its_age() -> None:
    cache = TagCache()

    cache.recall(KEY, entry_at(-100.0))

    assert cache.decide(KEY, 0.0) == Revalidate(entry_at(-100.0))


@pytest.mark.parametrize("spoken", ["confirmed", "refused"])
def test_a_recollection_never_overrules_upstream(spoken: str) -> None:
    cache = TagCache()
    if spoken == "confirmed":
        cache.confirmed(KEY, entry_at(5.0))
    else:
        cache.refused(KEY, GONE, 5.0)

    cache.recall(KEY, entry_at(0.0))

    expected = Fresh(entry_at(5.0)) if spoken == "confirmed" else Revalidate(None)
    assert cache.decide(KEY, 11.0) == expected


def test_the_number_of_tags_is_bounded() -> None:
    cache = TagCache(tags_max=10)

    for i in range(100):
        cache.confirmed(TagKey(i.to_bytes(32, "big")), entry_at(0.0))

    assert len(cache) == 10


def test_a_doubtful_tag_is_looked_up_before_its_time() -> None:
    entry = entry_at(100.0)
    assert cache_with(entry).decide(KEY, 105.0, doubtful=True) == Revalidate(entry)


def test_a_doubt_does_not_hurry_a_registry_that_is_silent() -> None:
    entry = entry_at(100.0)
    cache = cache_with(entry)
    cache.unanswered(KEY, "timeout", 105.0)
    assert cache.decide(KEY, 106.0, doubtful=True) == Fresh(entry, "timeout")


def test_a_refusal_is_none_for_who_accepts_more() -> None:
    cache = TagCache()
    cache.refused(KEY, GONE, 0.0, accepted=["a/b"])
    assert cache.decide(KEY, 1.0) == Absent(GONE)
    assert cache.decide(KEY, 1.0, accepted=["a/b"]) == Absent(GONE)
    assert cache.decide(KEY, 1.0, accepted=["a/b", "c/d"]) == Revalidate(None)


def test_when_a_tag_was_checked_is_known() -> None:
    assert cache_with(entry_at(7.0)).checked_s(KEY) == 7.0
    assert TagCache().checked_s(KEY) is None
