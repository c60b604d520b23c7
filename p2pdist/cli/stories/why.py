"""What took the time of one blob, in a sentence or two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from p2pdist.cli.amounts import size_text
from p2pdist.cli.stories.words import OUTSIDE, counted, host_text, lack_text, outside, seconds
from p2pdist.swarm.core.event_log import Kind, Lack, Source, Story

SHARE: Final = 0.1
"""Of the time: what took less is not said."""
LEAST_S: Final = 0.3
MAIN_SHARE: Final = 0.6
"""Of the bytes: who brought so much is named."""
SENTENCES_MAX: Final = 4
SMOOTH: Final = "Nothing stood still: it came as fast as those who sent it, and the line, gave it."


def took_s(story: Story) -> float:
    """Seconds from when it was taken up to its end, or until now."""
    return story.ended_s if story.ended_s is not None else story.age_s


def sentences(story: Story) -> list[str]:
    """What took longest first; at least one."""
    if not story.wanted:
        return ["Nothing was fetched: it lay here, and was read or sent from the disk."]
    if not story.sources and story.outcome == "whole":
        return ["Nothing was fetched: it lay here already."]
    found = sorted(_causes(story), reverse=True)
    said = [text for length_s, text in found if length_s >= _least_s(story)]
    said += _troubles(story)
    if story.outcome == "failed":
        said.insert(0, f"It failed: {_why_failed(story)}.")
    return said[:SENTENCES_MAX] or [SMOOTH]


def _least_s(story: Story) -> float:
    return max(LEAST_S, SHARE * took_s(story))


def _causes(story: Story) -> Iterator[tuple[float, str]]:
    yield _until_map(story)
    for lack, length_s in story.lacks.items():
        if lack != Lack.MAP and not (lack == Lack.PACE and story.held_s):
            yield length_s, _lacked(story, lack, length_s)
    share = _share(story, story.held_s)
    yield story.held_s, f"The pace of bulk held it back for {seconds(story.held_s)}{share}."
    if (main := _main_source(story)) is not None:
        yield _span_s(main), _main_text(story, main)


def _until_map(story: Story) -> tuple[float, str]:
    sought_s = next((e.at_s for e in story.entries if e.kind is Kind.JOINED), 0.0)
    maps = (Kind.MAP, Kind.MAP_SWITCHED)
    came_s = next((e.at_s for e in story.entries if e.kind in maps), took_s(story))
    length_s = max(0.0, came_s - sought_s)
    before = {e.kind for e in story.entries if e.at_s <= came_s}
    if Kind.COMING in before:
        why = "a proxy was still beginning to read it"
    elif Kind.NEIGHBOUR not in before:
        why = "nobody could be asked"
    else:
        why = "nobody who was asked had it"
    return length_s, f"{seconds(length_s)} until the map's head: {why}."


def _lacked(story: Story, lack: str, length_s: float) -> str:
    by_host: dict[str, float] = {}
    for entry in story.entries:
        if entry.kind is Kind.SILENCE and entry.text == lack and entry.host:
            by_host[entry.host] = by_host.get(entry.host, 0.0) + entry.for_s
    worst = max(by_host, key=lambda host: by_host[host], default="")
    whom = f", mostly of {host_text(story, worst)}" if worst else ""
    silent = f"Nothing came for {seconds(length_s)}{_share(story, length_s)}"
    return f"{silent}: {lack_text(lack)}{whom}."


def _share(story: Story, length_s: float) -> str:
    whole_s = took_s(story)
    return f" ({min(1.0, length_s / whole_s):.0%} of the time)" if whole_s > 0 else ""


def _main_source(story: Story) -> Source | None:
    """Who brought most of it, where it was not at once."""
    total = sum(source.nbytes for source in story.sources)
    main = next(iter(story.sources), None)
    if main is None or main.nbytes < MAIN_SHARE * total or main.chunks < 2:
        return None
    return main


def _span_s(source: Source) -> float:
    return source.last_s - source.first_s


def _main_text(story: Story, main: Source) -> str:
    total = sum(source.nbytes for source in story.sources)
    who = host_text(story, main.host) if main.host else f"the {main.label} ({main.address})"
    rate = size_text(main.nbytes / max(_span_s(main), 0.001))
    return f"{main.nbytes / total:.0%} came from {who}, at {rate}/s for {seconds(_span_s(main))}."


def _troubles(story: Story) -> Iterator[str]:
    """What may have cost less time, and is not as it should be."""
    for source in story.sources:
        if source.bad:
            yield f"Wrong bytes: {counted(source.bad, 'chunk')} of {host_text(story, source.host)}."
    for entry in story.entries:
        if entry.kind is Kind.OUTSIDE:
            why = OUTSIDE.get(entry.text, entry.text)
            yield f"A reader went past the swarm, to the {outside(entry.host)}: {why}."
            return


def _why_failed(story: Story) -> str:
    return next((e.text for e in story.entries[::-1] if e.kind is Kind.FAILED), "nobody said why")
