"""`Link` headers (RFC 8288), as registries use them to lead to the next page of a list."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final

# A query of 4 KiB (`paging.QUERY_LENGTH_MAX`), and what comes before it.
TARGET_LENGTH_MAX: Final = 6 * 1024
# A header may have many lines of up to 64 KiB.
HEADERS_MAX: Final = 4
HEADER_LENGTH_MAX: Final = 8 * 1024

# Each pattern is matched where the one before ended, and none gives back what it took: the time is
# linear, whatever a registry sends. One pattern for all of it took 0.13 s for 8 kB of `<a>;<a>;`.
_COMMAS: Final = re.compile(r"[ \t,]*+")
_TARGET: Final = re.compile(rf"<([^<>]{{1,{TARGET_LENGTH_MAX}}}+)>")
_PARAM: Final = re.compile(
    r'[ \t]*+;[ \t]*+([^\s=;,"<>]*+)[ \t]*+'
    r'(?:=[ \t]*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;,"<>]*+)))?'
)
_END: Final = re.compile(r"[ \t]*+(?:,|$)")
_ESCAPE: Final = re.compile(r"\\(.)")


def next_page(headers: Iterable[str]) -> str | None:
    """Return the target of the first link to a next page, as it stands; None where there is none.

    `headers`: all `Link` values of one answer; what comes after a malformed link is dropped.
    """
    for _, header in zip(range(HEADERS_MAX), headers, strict=False):
        for target, relations in _links(header[:HEADER_LENGTH_MAX]):
            if "next" in relations:
                return target
    return None


def _links(header: str) -> Iterator[tuple[str, list[str]]]:
    """Targets and their relation types in lower case; of a repeated `rel` the first counts."""
    at = _end_of(_COMMAS, header, 0)
    while match := _TARGET.match(header, at):
        at = match.end()
        relations: list[str] | None = None
        while param := _PARAM.match(header, at):
            at = param.end()
            if relations is None and param[1].lower() == "rel":
                value = param[3] or "" if param[2] is None else _ESCAPE.sub(r"\1", param[2])
                relations = value.lower().split()
        if _END.match(header, at) is None:
            return
        yield match[1], relations or []
        at = _end_of(_COMMAS, header, at)


def _end_of(pattern: re.Pattern[str], text: str, at: int) -> int:
    match = pattern.match(text, at)
    return match.end() if match else at
