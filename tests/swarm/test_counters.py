"""Why bytes came from outside of the swarm."""

from __future__ import annotations

import pytest

from p2pdist.swarm.counters import (
    AWAY,
    FALLBACK_REASONS,
    FIRST_BYTE,
    FULL,
    NO_LINK,
    REFUSED,
    STARVED,
    fallback_reason,
)


@pytest.mark.parametrize(
    ("reason", "by_proxy", "reachable", "all_refuse", "counted"),
    [
        (STARVED, True, True, False, STARVED),
        (FIRST_BYTE, False, True, False, FIRST_BYTE),
        (FIRST_BYTE, True, False, False, NO_LINK),
        (STARVED, False, False, False, AWAY),
        (FIRST_BYTE, True, False, True, REFUSED),
        (FIRST_BYTE, False, True, True, REFUSED),
        (FULL, True, True, False, FULL),
        (FULL, False, False, False, FULL),
    ],
)
def test_the_state_of_the_links_explains_more_than_the_reader_can(
    reason: str, by_proxy: bool, reachable: bool, all_refuse: bool, counted: str
) -> None:
    found = fallback_reason(
        reason, by_proxy=by_proxy, has_proxies=True, reachable=reachable, all_refuse=all_refuse
    )

    assert found == counted
    assert found in FALLBACK_REASONS


def test_without_any_proxy_the_reader_is_right() -> None:
    found = fallback_reason(
        STARVED, by_proxy=False, has_proxies=False, reachable=False, all_refuse=False
    )
    assert found == STARVED
