"""Which images a rule means, and which rules are none."""

from __future__ import annotations

import pytest

from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.rules import Pattern, Rule, check_rule, parse_pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("alpine", Pattern("docker.io", "library/alpine", "")),
        ("alpine:3.20", Pattern("docker.io", "library/alpine", "3.20")),
        ("team/*:v*", Pattern("docker.io", "team/*", "v*")),
        ("reg.corp:5000/a/b:1", Pattern("reg.corp:5000", "a/b", "1")),
        ("reg.corp:5000/*", Pattern("reg.corp:5000", "*", "")),
        ("registry/a:1", Pattern("registry", "a", "1")),
    ],
)
def test_patterns(text: str, pattern: Pattern) -> None:
    assert parse_pattern(text, {"registry"}) == pattern


@pytest.mark.parametrize("text", ["", "reg.corp/", "A/b", "a:", "a:b:c", "r.io/[ab]", "a?", "x:.y"])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_pattern(text)


def test_a_star_crosses_slashes_and_stays_within_its_registry() -> None:
    rule = Rule("web", (parse_pattern("reg.corp/team/*:v*"),))

    assert rule.matches(ImageName("reg.corp", "team/a/b"), "v1")
    assert not rule.matches(ImageName("reg.corp", "team/a"), "1")
    assert not rule.matches(ImageName("reg.corp", "other/a"), "v1")
    assert not rule.matches(ImageName("docker.io", "team/a"), "v1")


@pytest.mark.parametrize(
    ("text", "fault"),
    [("reg.corp/*:1", "registries do not list repositories"), ("reg.corp/a", "without a tag")],
)
def test_what_cannot_be_polled_says_so(text: str, fault: str) -> None:
    check_rule(Rule("web", (parse_pattern(text),)))
    with pytest.raises(ValueError, match=fault):
        check_rule(Rule("web", (parse_pattern(text),), poll_s=60))


@pytest.mark.parametrize(
    "rule", [Rule("Web", (Pattern("a", "b", ""),)), Rule("web", ())], ids=["name", "images"]
)
def test_rules_that_are_none(rule: Rule) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_rule(rule)
