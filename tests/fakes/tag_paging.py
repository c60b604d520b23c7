"""How registries lead from one page of a tag list to the next one."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode


@dataclass(frozen=True)
class Page:
    """`link`: the query of the next page."""

    tags: Sequence[str]
    link: str | None = None


class CursorRefused(Exception):
    """The registry gave out no such cursor."""


Paging = Callable[[Sequence[str], Mapping[str, str], int], Page]


def by_last(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """docker-registry 2.8, and the specification: after the tag `last`, in the order of names."""
    rest = [tag for tag in tags if tag > query.get("last", "")]
    page = rest[:size]
    more = len(page) < len(rest)
    return Page(page, urlencode({"last": page[-1], "n": size}) if more else None)


def by_next_page(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """Quay: a token of its own in a field of its own."""
    if "last" in query:
        raise CursorRefused
    start = _read(query["next_page"]) if "next_page" in query else 0
    return _page(tags, start, size, lambda stop: f"n={size}&next_page={_token(stop)}")


def by_token_in_last(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """ECR: a token that is no tag in the field of the specification."""
    start = _read(query["last"]) if "last" in query else 0
    return _page(tags, start, size, lambda stop: urlencode({"last": _token(stop), "n": size}))


def by_offset(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """Artifactory: `last` is a number, and what is none is taken for 0."""
    last = query.get("last", "")
    start = int(last) if last.isdigit() else 0
    return _page(tags, start, size, lambda stop: f"last={stop}&n={size}")


def not_at_all(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """Nexus: neither `n` nor `last` is looked at."""
    return Page(tags)


def back_to_the_start(tags: Sequence[str], query: Mapping[str, str], size: int) -> Page:
    """`last` is not looked at, and yet there is a link."""
    return Page(tags[:size], urlencode({"last": tags[:size][-1], "n": size}))


PAGINGS: Final[dict[str, Paging]] = {
    "docker-registry": by_last,
    "quay": by_next_page,
    "ecr": by_token_in_last,
    "artifactory": by_offset,
    "nexus": not_at_all,
}


def _page(tags: Sequence[str], start: int, size: int, link: Callable[[int], str]) -> Page:
    stop = start + size
    return Page(tags[start:stop], link(stop) if stop < len(tags) else None)


def _token(number: int) -> str:
    return base64.b64encode(f"page-{number:06}".encode()).decode()


def _read(token: str) -> int:
    try:
        return int(base64.b64decode(token, validate=True).decode().removeprefix("page-"))
    except ValueError:
        raise CursorRefused from None
