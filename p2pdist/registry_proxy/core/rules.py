"""Which images a replication rule means."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import (
    DOCKER_HUB,
    canonical_upstream,
    image_name,
    looks_like_host,
    valid_tag,
)

# Metrics have a series per rule and datacenter.
RULES_MAX: Final = 32
PATTERNS_MAX: Final = 64
PATTERN_LENGTH_MAX: Final = 384
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_REPOSITORY_GLOB: Final = re.compile(r"[a-z0-9._*-]+(?:/[a-z0-9._*-]+)*")
_TAG_GLOB: Final = re.compile(r"[A-Za-z0-9_.*-]{1,128}")


@dataclass(frozen=True, slots=True)
class Pattern:
    """`*` stands for any characters, slashes too."""

    upstream: str
    repository: str
    tag: str
    """Empty: none was written, which means every tag."""

    def matches(self, name: ImageName, tag: str) -> bool:
        return (
            self.upstream == name.upstream
            and fnmatchcase(name.repository, self.repository)
            and fnmatchcase(tag, self.tag or "*")
        )


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `poll_s` 0: by notification only. Rates are bytes a second, 0: no limit."""

    name: str
    patterns: tuple[Pattern, ...]
    dcs: tuple[str, ...] = ()
    hosts: str = ""
    poll_s: float = 0.0
    rate: int = 0
    dc_rate: int = 0
    pin_s: float = 7 * 86400.0
    platform: str = ""
    priority: int = 0

    def matches(self, name: ImageName, tag: str) -> bool:
        return any(pattern.matches(name, tag) for pattern in self.patterns)


def parse_pattern(text: str, upstreams: Collection[str] = ()) -> Pattern:
    """Parse `registry/repository[:tag]`; raise ValueError with a text that names the fault.

    `upstreams`: hosts that count as such even where they look like a part of a repository.
    """
    if len(text) > PATTERN_LENGTH_MAX:
        raise ValueError("longer than any image's name")
    head, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    host, cut, rest = f"{head}{slash}{last}".partition("/")
    if cut and (host in upstreams or looks_like_host(host)):
        upstream, repository = canonical_upstream(host), rest
    else:
        upstream, repository = DOCKER_HUB, f"{host}{cut}{rest}"
    if "*" not in repository:
        repository = image_name(upstream, repository).repository
    elif upstream == DOCKER_HUB and "/" not in repository and repository != "*":
        repository = f"library/{repository}"
    if _REPOSITORY_GLOB.fullmatch(repository) is None:
        raise ValueError(f"{repository!r} is no repository, `*` being the only wildcard")
    if colon and _TAG_GLOB.fullmatch(tag) is None:
        raise ValueError(f"{tag!r} is no tag, `*` being the only wildcard")
    if tag and "*" not in tag and not valid_tag(tag):
        raise ValueError(f"{tag!r} is no tag")
    return Pattern(upstream, repository, tag)


def check_rule(rule: Rule) -> None:
    """Raise ValueError for a rule that cannot be followed."""
    if _NAME.fullmatch(rule.name) is None:
        raise ValueError("its name must be of a-z, 0-9, '.', '_' and '-'")
    if not 1 <= len(rule.patterns) <= PATTERNS_MAX:
        raise ValueError(f"it needs 1 to {PATTERNS_MAX} images")
    if not -100 <= rule.priority <= 100:
        raise ValueError("priority must be from -100 to 100")
    if len(rule.dcs) > 64:
        raise ValueError("more than 64 dcs")
    if len(rule.hosts) > 4096 or any(len(t) > 255 for t in (rule.platform, *rule.dcs)):
        raise ValueError("a text of it is too long")
    if rule.pin_s > 366 * 86400.0:
        raise ValueError("pin is at most 366d")
    if rule.poll_s == 0:
        return
    if rule.poll_s < 1:
        raise ValueError("poll must be 1s or more, or 0")
    for pattern in rule.patterns:
        if "*" in pattern.repository:
            raise ValueError(
                f"{pattern.upstream}/{pattern.repository} cannot be polled: registries do not list "
                "repositories; name them, or set poll = 0 and let the registry notify"
            )
        if not pattern.tag:
            raise ValueError(
                f"{pattern.upstream}/{pattern.repository} cannot be polled without a tag; "
                "write :latest, or :* for all of them"
            )
