"""From page to page of a registry's list, by the registry's own word.

A registry may go on from a tag, a number or a token that only it understands. So the query of its
`Link` is passed on as it is, from one who asks to the next, and comes back with the next request.
Only the query travels: scheme, host and path are always those of whoever asks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import parse_qsl, unquote, unquote_plus, urljoin, urlsplit

QUERY_LENGTH_MAX: Final = 4096

# All that is printed, but for what would end a query or the link around it.
_QUERY: Final = re.compile(r'[^\x00-\x20\x7f-\U0010ffff"#<>\\]*')
_NAMESPACE: Final = "ns"
_PAGE_SIZE: Final = "n"


def check_query(text: str) -> str:
    """Return `text`; raise ValueError for what must not stand in a request line or a link."""
    if len(text) > QUERY_LENGTH_MAX or _QUERY.fullmatch(text) is None:
        raise ValueError("a query that is none, or too long")
    return text


def without_namespace(query: str) -> str:
    """What is left of a query for the registry: `ns` is a word between runtimes and mirrors."""
    return "&".join(field for field in query.split("&") if field and not _is_namespace(field))


def following_query(link: str, list_path: str) -> str:
    """Return the query of a link to the next page of the list at `list_path`.

    Raises ValueError for a link to anything else. What stands before the list's path does not
    matter: registries behind other servers do not know their own scheme, host and prefix.
    """
    target = urlsplit(urljoin(list_path, link))
    if not unquote(target.path).endswith(list_path):
        raise ValueError("the next page of a list lies elsewhere")
    if any(map(_is_namespace, target.query.split("&"))):
        raise ValueError("the next page of a list has a namespace of its own")
    return check_query(target.query)


def goes_on(query: str, following: str) -> bool:
    """Tell whether `following` asks for another page than `query` did, whatever their sizes."""
    return _cursor(following) not in ([], _cursor(query))


def is_repeated(query: str, tags: Sequence[str]) -> bool:
    """Tell whether a last page is the one before it: its registry does not look at `last`.

    A cursor may be a number that is also the name of a tag; that it is the name of the very last
    tag is nearly always no chance.
    """
    return bool(tags) and _cursor(query) == [("last", tags[-1])]


def _cursor(query: str) -> list[tuple[str, str]]:
    fields = parse_qsl(query, keep_blank_values=True, encoding="latin-1")  # any bytes
    return sorted(field for field in fields if field[0] not in (_PAGE_SIZE, _NAMESPACE))


def _is_namespace(field: str) -> bool:
    return unquote_plus(field.partition("=")[0]) == _NAMESPACE
