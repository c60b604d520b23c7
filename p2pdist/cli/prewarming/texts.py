"""Words and columns that all of it is written with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import click

from p2pdist.process.terminal import printable

_ESCAPE: Final = re.compile(r"\x1b\[[0-9;]*m")


def span(seconds: float) -> str:
    """`0:42`, `1:02:03`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole >= 2 * 86400:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, rest = divmod(whole, 3600)
    minutes, seconds = divmod(rest, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def moment(unix_s: float, now_unix_s: float) -> str:
    """`22:00:00` today, `2026-11-25 22:00` on other days; local time."""
    at, now = (datetime.fromtimestamp(s, UTC).astimezone() for s in (unix_s, now_unix_s))
    return f"{at:%H:%M:%S}" if at.date() == now.date() else f"{at:%Y-%m-%d %H:%M}"


def plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def share(part: float) -> str:
    return f"{part * 100:g}%"


def images_text(images: Sequence[str]) -> str:
    rest = f" and {len(images) - 1} more" if len(images) > 1 else ""
    return printable(images[0]) + rest if images else "no image"


def cut(text: str, width: int) -> str:
    """Shorten a text without colours."""
    return text if len(text) <= width else text[: max(0, width - 1)] + "…"


def width_of(text: str) -> int:
    return len(_ESCAPE.sub("", text))


def columns(rows: Sequence[Sequence[str]], right: str) -> list[str]:
    """Align rows, colours and all; `right` has an `r` for each column that is aligned right."""
    widths = [max(width_of(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = []
        for text, width, side in zip(row, widths, right, strict=True):
            pad = " " * (width - width_of(text))
            cells.append(pad + text if side == "r" else text + pad)
        lines.append("  ".join(cells).rstrip())
    return lines


def dim(text: str) -> str:
    return click.style(text, dim=True)


def headed(titles: Sequence[str], rows: Sequence[Sequence[str]], right: str) -> list[str]:
    """Align rows under their titles."""
    return columns([[dim(title) for title in titles], *rows], right)
