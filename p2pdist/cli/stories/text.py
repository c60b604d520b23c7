"""The story of a blob as a person on call reads it: pure text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from p2pdist.cli.amounts import age_text, size_text
from p2pdist.cli.stories.why import sentences, took_s
from p2pdist.cli.stories.words import LABELS, WORDS, seconds
from p2pdist.model.ids import PRIVATE
from p2pdist.model.private_digests import SCOPE_BYTES
from p2pdist.process.terminal import folded, printable
from p2pdist.swarm.core.event_log import FIRST_MAX, Kind, Source, Story
from p2pdist.swarm.stories import Known, Told

SOURCES_SHOWN: Final = 8
PEAK_LEAST_S: Final = 3.0
"""Of shorter motions the best whole second says nothing."""
_OUTCOMES: Final = {"whole": "whole", "failed": "FAILED", "let_go": "left alone"}


def describe(told: Told, columns: int | None) -> list[str]:
    """The motions of one blob that one daemon remembers, the oldest first; those in which it was
    only sent to others are left out where there are others."""
    stories = [story for story in told.stories if story.wanted] or told.stories[:1]
    lines = [_teller(told)]
    for story in reversed(stories):
        lines += ["", *_head(story, columns), "", *_course(story, columns), ""]
        for text in sentences(story):
            lines += folded("  => ", printable(text), columns)
    return lines


def describe_known(told: Told, columns: int | None) -> list[str]:
    """One line for each blob that there is a story of."""
    return [_teller(told), *(_known_line(blob) for blob in told.blobs)]


def _teller(told: Told) -> str:
    teller = told.teller
    return printable(f"{teller.role} {teller.host_id[:12]} in {teller.dc}")


def _known_line(blob: Known) -> str:
    outcome = _OUTCOMES.get(blob.outcome, "under way") if blob.wanted else "sent only"
    fetched = f"{size_text(blob.fetched_bytes)} of {size_text(blob.size_bytes)}"
    age = f"{age_text(blob.age_s)} ago"
    return printable(f"  {_short(blob.digest)}  {outcome:<10} {fetched:<22} {age}")


def _short(digest: str) -> str:
    """Enough to name it by; private ones of a repository begin alike, and go by what follows."""
    algorithm, _, encoded = digest.partition(":")
    own = encoded[2 * SCOPE_BYTES :] if algorithm == PRIVATE else encoded
    return f"{algorithm}:{own}"[:19]


def _head(story: Story, columns: int | None) -> list[str]:
    began = datetime.fromtimestamp(story.began_unix_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    lines = [f"  {printable(story.digest)}"]
    lines.append(f"  {size_text(story.size_bytes)}, taken up {began} ({age_text(story.age_s)} ago)")
    lines += folded("  ", _outcome(story), columns)
    total = sum(source.nbytes for source in story.sources)
    shown = story.sources[:SOURCES_SHOWN]
    for source in shown:
        lines += _source_lines(source, total, columns)
    if rest := story.sources[SOURCES_SHOWN:]:
        nbytes = sum(source.nbytes for source in rest)
        lines.append(f"  {size_text(nbytes):>9}  {nbytes / total:>4.0%}  {len(rest)} others")
    return lines


def _outcome(story: Story) -> str:
    fetched = sum(source.nbytes for source in story.sources)
    length_s = took_s(story)
    outcome = _OUTCOMES.get(story.outcome, "still under way")
    said = f"{outcome} after {seconds(length_s)}"
    if not fetched or length_s <= 0:
        return f"{said}; nothing was fetched"
    mean = f"{size_text(fetched)} fetched, {size_text(fetched / length_s)}/s"
    if length_s < PEAK_LEAST_S:
        return f"{said}: {mean}"
    return f"{said}: {mean}, {size_text(story.peak_bytes_per_s)} in its best second"


def _source_lines(source: Source, total: int, columns: int | None) -> list[str]:
    share = source.nbytes / total if total else 0.0
    label = LABELS.get(source.label, source.label)
    name = f"{label} {source.host[:12]}".strip() if source.host else label
    address = f" ({source.address})" if source.address else ""
    bad = f", {source.bad} WRONG" if source.bad else ""
    head = f"  {size_text(source.nbytes):>9}  {share:>4.0%}  "
    return folded(head, printable(f"{name}{address}{bad}"), columns)


def _course(story: Story, columns: int | None) -> list[str]:
    lines = []
    for i, entry in enumerate(story.entries):
        if i == FIRST_MAX and story.left_out:
            lines.append(f"  ({story.left_out} entries left out)")
        text = printable(WORDS[Kind(entry.kind)](entry, story))
        lines += folded(f"  {f'+{entry.at_s:.3f} s':>12}  ", text, columns)
    return lines
