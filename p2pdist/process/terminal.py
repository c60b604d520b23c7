"""What may reach a terminal: text of strangers never steers it.

Others choose platform names of an index, errors of a mirror or a tracker, names of hosts. Such text
loses its control characters where it enters a line; `steady` does it again where lines go out, for
one that was forgotten.
"""

from __future__ import annotations

import re
import shutil
import textwrap
from typing import Final, TextIO

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


def columns_of(stream: TextIO) -> int | None:
    """How wide lines may be; None: it is no terminal, and who searches it wants them whole."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def folded(head: str, text: str, columns: int | None) -> list[str]:
    """`text` behind `head`, and going on below itself where it is wider than `columns`.

    Words stay whole: names and commands are there to be copied. One that has no room there (a key)
    begins further left.
    """
    if columns is None:
        return [head + text]
    room = max(columns - len(head), 1)
    first, *rest = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False) or [""]
    return [head + first, *(" " * min(len(head), columns - len(part)) + part for part in rest)]


def steady(line: str) -> str:
    """Do that for a line that we coloured: its colours stay."""
    return _outside(_COLOR, line)


def _outside(kept: re.Pattern[str], text: str) -> str:
    """Make all of `text` printable but what `kept`, a group, matches."""
    parts = kept.split(text)
    parts[::2] = map(printable, parts[::2])
    return "".join(parts)
