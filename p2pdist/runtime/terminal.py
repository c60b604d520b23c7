"""What may reach a terminal: text of strangers never steers it.

Others choose platform names of an index, errors of a mirror or a tracker, names of hosts. Such text
loses its control characters where it enters a line; `steady` does it again where lines go out, for
one that was forgotten.
"""

from __future__ import annotations

import re
from typing import Final

# C0, DEL and C1; line and paragraph separators; what turns the direction of text around it; halves
# of surrogate pairs, which no terminal's encoding has.
_CONTROL: Final = (
    r"\x00-\x1f\x7f-\x9f\u2028\u2029\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff"
)
_UNPRINTABLE: Final = re.compile(f"[{_CONTROL}]+")
_BREAK: Final = re.compile(r"([\n\t])")
_COLOR: Final = re.compile(r"(\x1b\[[0-9;]*m)")


def printable(text: str) -> str:
    """One line of text without control characters; a space stands for each run of them."""
    return _UNPRINTABLE.sub(" ", text)


def printable_lines(text: str) -> str:
    """Do that for a text of ours that has several lines, and tabs."""
    return _outside(_BREAK, text)


def steady(line: str) -> str:
    """Do that for a line that we coloured: its colours stay."""
    return _outside(_COLOR, line)


def _outside(kept: re.Pattern[str], text: str) -> str:
    """Make all of `text` printable but what `kept`, a group, matches."""
    parts = kept.split(text)
    parts[::2] = map(printable, parts[::2])
    return "".join(parts)
