"""Media types: which texts are one, and which ones a client accepts beside ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Final

# RFC 9110: a token on each side; RFC 6838 gives each side 127 characters.
_NAME: Final = r"[\w!#$%&'*+.^`|~-]{1,127}"
_MEDIA_TYPE: Final = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
_REFUSED: Final = re.compile(r"\s*q\s*=\s*0(\.0{0,3})?\s*", re.IGNORECASE)

ACCEPTED_MAX: Final = 32
ACCEPTED_LENGTH_MAX: Final = 2048
"""Characters of all types together; what comes after them is left out."""

# A registry that is asked for these may make one of what it has, under another digest.
SCHEMA_1: Final = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)


def valid_media_type(text: str) -> bool:
    """Whether `text` is a media type without parameters."""
    return len(text) <= 255 and _MEDIA_TYPE.fullmatch(text) is not None


def accepted_beyond(values: Iterable[str], ours: Collection[str]) -> tuple[str, ...]:
    """Return what the Accept lines `values` name beside `ours`, wildcards last; bounded.

    Parameters and weights are left out: it is an addition to `ours`, which come first.
    """
    found: dict[str, None] = {}
    left = ACCEPTED_LENGTH_MAX
    for part in ",".join(values)[: 4 * ACCEPTED_LENGTH_MAX].split(","):
        media_type, *parameters = part.split(";")
        bare = media_type.strip().lower()
        unwanted = any(_REFUSED.fullmatch(parameter) for parameter in parameters)
        known = bare in ours or bare in SCHEMA_1 or bare in found
        if unwanted or known or not valid_media_type(bare):
            continue
        left -= len(bare)
        if left < 0 or len(found) == ACCEPTED_MAX:
            break
        found[bare] = None
    return tuple(sorted(found, key=lambda media_type: "*" in media_type))
