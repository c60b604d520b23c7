"""The runs as a picture: a bar for each contender of each case, beside the limit."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Final

COLOURS: Final = {"p2pdist": "#3266a8", "aria2": "#c2571a", "libtorrent": "#2d8a57"}
LEFT: Final = 150
ACROSS: Final = 480
BAR: Final = 16
TOP: Final = 34


def bars(ratios: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """SVG of medians, and of the lowest and the highest of several rounds, over multiples of the
    limit. `ratios`: by case and contender, in the order in which they are shown."""
    most = max([1.5, *(max(found) for found in ratios.values())])
    height = TOP + sum(BAR + 2 for _ in ratios) + 8 * len({case for case, _ in ratios}) + 40

    def x(ratio: float) -> float:
        return LEFT + ratio / most * ACROSS

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + ACROSS + 70}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for number, (name, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{LEFT + 100 * number}" y="18" fill="{colour}">{name}</text>')
    y, before = TOP, ""
    for (case, contender), found in ratios.items():
        if case != before:
            y, before = y + 8, case
            parts.append(f'<text x="{LEFT - 8}" y="{y + 12}" text-anchor="end">{case}</text>')
        median, colour = statistics.median(found), COLOURS[contender]
        middle = y + BAR / 2
        parts.append(
            f'<rect x="{LEFT}" y="{y}" width="{x(median) - LEFT:.1f}" height="{BAR}" '
            f'fill="{colour}"/>'
            f'<line x1="{x(min(found)):.1f}" x2="{x(max(found)):.1f}" y1="{middle}" y2="{middle}" '
            'stroke="#111"/>'
            f'<text x="{x(max(found)) + 6:.1f}" y="{y + 12}">{median:.2f}</text>'
        )
        y += BAR + 2
    parts.append(
        f'<line x1="{x(1):.1f}" x2="{x(1):.1f}" y1="{TOP}" y2="{y}" stroke="#333"/>'
        f'<text x="{x(1):.1f}" y="{y + 16}" text-anchor="middle">limit</text>'
        f'<text x="{LEFT}" y="{y + 32}">time of the last host over the limit of its link</text>'
        "</svg>"
    )
    return "\n".join(parts) + "\n"
