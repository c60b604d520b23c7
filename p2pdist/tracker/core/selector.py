"""Selectors: which hosts a job is for.

    web-*                    hosts whose name matches a glob; `*` is everybody
    role=web,zone!=b         by labels, all of it at once (the value may be a glob)
    role=web,10%             a share of those; `25` in its place: so many of them
    web-*;role=db            either

A share is chosen by rendezvous hash of the host ids, so that a larger one contains the smaller.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from p2pdist.model.rendezvous import ranked

TERMS_MAX: Final = 64
_SHARE: Final = re.compile(r"(\d{1,3}(?:\.\d{1,4})?)%")
_COUNT: Final = re.compile(r"\d{1,7}")
_LABEL: Final = re.compile(r"([A-Za-z0-9._/-]{1,63})(!?=)(.*)")
_GLOB: Final = re.compile(r"[A-Za-z0-9.*?\[\]_-]{1,255}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A host as it describes itself: what selectors and jobs choose by."""

    host_id: str
    name: str
    labels: Mapping[str, str]
    dc: str = ""
    platform: str = ""
    runtimes: tuple[str, ...] = ()
    proxy: bool = False
    pulls: bool = True
    """A runtime of its own pulls through it: peers, and proxies that serve their host's mirror."""


@dataclass(frozen=True, slots=True)
class _Term:
    key: str
    """Empty: the host's name."""
    glob: str
    negated: bool = False

    def matches(self, host: Candidate) -> bool:
        if not self.key:
            return fnmatchcase(host.name, self.glob)
        value = host.labels.get(self.key)
        return (value is not None and fnmatchcase(value, self.glob)) is not self.negated


@dataclass(frozen=True, slots=True)
class _Group:
    terms: tuple[_Term, ...]
    share: float | None = None
    count: int | None = None

    def matches(self, host: Candidate) -> bool:
        return all(term.matches(host) for term in self.terms)

    def choose(self, hosts: Iterable[Candidate]) -> list[str]:
        ids = [host.host_id for host in hosts if self.matches(host)]
        if self.share is None and self.count is None:
            return ids
        wanted = self.count if self.share is None else math.ceil(len(ids) * self.share - 1e-9)
        return ranked("selector", ids)[:wanted]


@dataclass(frozen=True, slots=True)
class Selector:
    groups: tuple[_Group, ...]

    def choose(self, hosts: Iterable[Candidate]) -> set[str]:
        """Return the ids of those that are meant."""
        everybody = list(hosts)
        return {host_id for group in self.groups for host_id in group.choose(everybody)}

    def admits(self, host: Candidate) -> bool:
        """Whether a host that came later is meant: shares and counts are closed by then."""
        open_groups = (g for g in self.groups if g.share is None and g.count is None)
        return any(group.matches(host) for group in open_groups)


def parse_selector(text: str) -> Selector:
    """Raise ValueError, with the term in question, for what is no selector."""
    groups = tuple(_group(part) for part in text.split(";"))
    if sum(len(group.terms) for group in groups) > TERMS_MAX:
        raise ValueError(f"a selector has at most {TERMS_MAX} terms")
    return Selector(groups)


def parse_labels(labels: Iterable[str]) -> dict[str, str]:
    """Split `key=value` texts; what has another form is left out."""
    pairs = (label.partition("=") for label in labels)
    return {key: value for key, equals, value in pairs if equals and key}


def _group(text: str) -> _Group:
    parts = [part.strip() for part in text.split(",")]
    last = parts[-1]
    share = count = None
    if match := _SHARE.fullmatch(last):
        share = float(match[1]) / 100
        if not 0 < share <= 1:
            raise ValueError(f"{last} is no share of hosts")
    elif _COUNT.fullmatch(last):
        count = int(last)
        if not count:
            raise ValueError("a selector for 0 hosts")
    if share is not None or count is not None:
        parts = parts[:-1]
    return _Group(tuple(_term(part) for part in parts), share, count)


def _term(text: str) -> _Term:
    if match := _LABEL.fullmatch(text):
        return _Term(match[1], match[3], match[2] == "!=")
    if not _GLOB.fullmatch(text):
        raise ValueError(f"{text!r} is no part of a selector; see `p2pdist prewarm --help`")
    return _Term("", text)
