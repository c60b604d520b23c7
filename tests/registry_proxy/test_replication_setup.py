"""Rules that cannot be followed are errors of the configuration."""

from __future__ import annotations

import pytest

from p2pdist.errors import ConfigError
from p2pdist.registry_proxy.replication_setup import read_rules
from p2pdist.settings import Proxy, Replicate, Settings, Upstream

PROXY = Proxy(job_trackers=("http://t:5209",))
RULE = Replicate(name="web", images=("corp/team/*",))
UPSTREAM = (Upstream(host="corp"),)


def test_rules_go_by_the_names_of_upstreams() -> None:
    (rule,) = read_rules(Settings(proxy=PROXY, upstream=UPSTREAM, replicate=(RULE,)))

    assert (rule.patterns[0].upstream, rule.patterns[0].repository) == ("corp", "team/*")


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        (Settings(upstream=UPSTREAM, replicate=(RULE,)), "proxy.job_trackers"),
        (Settings(proxy=PROXY, upstream=UPSTREAM, replicate=(RULE, RULE)), "same name"),
        (
            Settings(
                proxy=PROXY,
                upstream=UPSTREAM,
                replicate=(Replicate(name="web", images=("elsewhere.io/a:1",)),),
            ),
            "no .*upstream.* has the host elsewhere.io",
        ),
        (
            Settings(
                proxy=PROXY,
                upstream=UPSTREAM,
                replicate=(Replicate(name="web", images=("corp/*:1",), poll=60.0),),
            ),
            "cannot be polled",
        ),
    ],
)
def test_what_is_wrong_is_said(settings: Settings, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        read_rules(settings)
