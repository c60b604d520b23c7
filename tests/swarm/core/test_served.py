"""A peer serves what its proxies serve, as far as it knows."""

from __future__ import annotations

from p2pdist.swarm.core.served import RENEW_S, RENEW_UNHEARD_S, ServedRegistries

P1, P2 = "http://p1", "http://p2"


def test_the_lists_of_all_proxies_count_and_the_own_entries() -> None:
    served = ServedRegistries([P1, P2], ["own.test"])

    served.told(P1, frozenset({"a.test"}))
    served.told(P2, frozenset({"b.test"}))

    assert sorted(served) == ["a.test", "b.test", "own.test"]
    assert "elsewhere.test" not in served


def test_the_last_list_of_a_proxy_replaces_the_one_before() -> None:
    served = ServedRegistries([P1])

    served.told(P1, frozenset({"a.test"}))
    served.told(P1, frozenset({"b.test"}))

    assert ("a.test" in served, "b.test" in served) == (False, True)


def test_before_anything_was_heard_the_proxies_are_asked() -> None:
    served = ServedRegistries([P1])

    assert "any.test" in served
    assert len(served) == 0


def test_a_proxy_that_tells_no_list_is_asked() -> None:
    served = ServedRegistries([P1, P2])

    served.told(P1, frozenset({"a.test"}))
    served.told(P2, None)

    assert "any.test" in served


def test_without_proxies_the_own_entries_are_all() -> None:
    served = ServedRegistries([], ["own.test"])

    assert ("own.test" in served, "any.test" in served) == (True, False)
    assert not served.to_renew(0.0)


def test_lists_are_renewed_no_more_than_once_a_minute() -> None:
    served = ServedRegistries([P1])
    served.told(P1, frozenset({"a.test"}))

    asked = [served.to_renew(at_s) for at_s in (0.0, 1.0, RENEW_S - 1, RENEW_S, RENEW_S + 1)]

    assert asked == [True, False, False, True, False]


def test_what_was_never_heard_is_asked_for_sooner() -> None:
    served = ServedRegistries([P1])

    asked = [served.to_renew(at_s) for at_s in (0.0, 1.0, RENEW_UNHEARD_S)]

    assert asked == [True, False, True]
