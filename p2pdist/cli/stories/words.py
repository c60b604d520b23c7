"""What each entry of a story says, in one line."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from p2pdist.cli.amounts import size_text
from p2pdist.swarm.core.event_log import Entry, Kind, Lack, Story

LABELS: Final = {
    "rack": "peer of this rack",
    "dc": "peer of this datacenter",
    "proxy": "proxy",
    "wan": "host of another datacenter",
    "upstream": "registry",
}
LACKS: Final = {
    Lack.NEIGHBOUR: "there was nobody to ask",
    Lack.MAP: "nobody who was asked had its map yet",
    Lack.HASHES: "the map did not grow: whoever reads the registry got nothing",
    Lack.OFFER: "nobody offered what lacked",
    Lack.PACE: "the pace of bulk kept it from asking",
    Lack.REGISTRY: "the registry sent nothing",
    Lack.ANSWER: "what was asked for did not come",
}
OUTSIDE: Final = {
    "starved": "the swarm brought nothing in time",
    "first_byte": "the swarm had not even begun in time",
    "failed": "its map failed",
    "store_full": "the disk does not take it",
    "other_size": "the manifest claims another size than the swarm's map",
    "by_caller": "its registry decides by the caller",
}
_WHERE: Final = {
    "rack": " in this rack",
    "dc": " in this datacenter",
    "wan": " in another datacenter",
}
_TURNS: Final = {
    "swarm": "looked for it in the swarm of this datacenter",
    "parents": "turned to the proxies of another datacenter",
    "origin_lease": "asked for the right to read the registry",
}


def seconds(value: float) -> str:
    """`0.013 s`, `2.1 s`, `95 s`."""
    if value < 1:
        return f"{value:.3f} s"
    return f"{value:.1f} s" if value < 60 else f"{value:.0f} s"


def host_text(story: Story, host: str) -> str:
    """`peer a1a1e8833243`, or the name of a registry."""
    if not host:
        return "somebody"
    labels = {e.host: e.text for e in story.entries if e.kind is Kind.NEIGHBOUR}
    labels |= {source.host: source.label for source in story.sources}
    return f"{_short(labels.get(host, ''))} {host[:12]}"


def _short(label: str) -> str:
    return "proxy" if label == "proxy" else "peer" if label in ("rack", "dc") else "host"


def lack_text(text: str) -> str:
    try:
        return LACKS[Lack(text)]
    except ValueError:
        return text


def outside(label: str) -> str:
    """A source outside of the swarm."""
    return "registry" if label == "upstream" else label


def counted(count: int, what: str) -> str:
    """`no chunks`, `1 chunk`, `7 chunks`."""
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"


def times(count: int) -> str:
    return f", {count} times" if count > 1 else ""


def _chunks(entry: Entry, story: Story) -> str:
    who = (
        host_text(story, entry.host) if entry.host else f"the {LABELS.get(entry.text, entry.text)}"
    )
    span_s = entry.until_s - entry.at_s
    rate = f", {size_text(entry.nbytes / span_s)}/s" if span_s >= 0.1 else ""
    return f"{counted(entry.count, 'chunk')} from {who}: {size_text(entry.nbytes)}{rate}"


def _turned(entry: Entry, story: Story) -> str:
    if entry.text == "registry":
        return f"read the registry {entry.host}{times(entry.count)}"
    return _TURNS.get(entry.text, f"turned to {entry.text}")


def _silence(entry: Entry, story: Story) -> str:
    whom = f", asked of {host_text(story, entry.host)}" if entry.host else ""
    return f"nothing came for {seconds(entry.for_s)}: {lack_text(entry.text)}{whom}"


def _neighbour(entry: Entry, story: Story) -> str:
    where = _WHERE.get(entry.text, "")
    return f"asked {host_text(story, entry.host)}{where}"


def _refused(entry: Entry, story: Story) -> str:
    why = "it has it no more" if entry.text == "gone" else "busy"
    return f"{host_text(story, entry.host)} would not send ({why}){times(entry.count)}"


def _down(entry: Entry, story: Story) -> str:
    why = f": {entry.text}" if entry.text else ""
    return f"the link to {host_text(story, entry.host)} ended{times(entry.count)}{why}"


def _waited(entry: Entry, story: Story) -> str:
    return f"a reader waited for {seconds(entry.for_s)}, at {size_text(entry.nbytes)}"


def _of(before: str, after: str = "") -> Callable[[Entry, Story], str]:
    """A line about its host."""
    return lambda entry, story: f"{before}{host_text(story, entry.host)}{after}{times(entry.count)}"


def _plain(text: str) -> Callable[[Entry, Story], str]:
    return lambda entry, story: f"{text}{times(entry.count)}"


WORDS: Final[Mapping[Kind, Callable[[Entry, Story], str]]] = {
    Kind.JOINED: _plain("joined its swarm"),
    Kind.NAMED: lambda e, s: f"the tracker named {counted(e.count, 'neighbour')}",
    Kind.UNREACHED: _of("no link to "),
    Kind.NEIGHBOUR: _neighbour,
    Kind.TURNED_AWAY: _of("did not ask ", ": there are enough neighbours"),
    Kind.DOWN: _down,
    Kind.PARTED: _of("parted from "),
    Kind.FURTHER: _plain("asked the tracker for more neighbours"),
    Kind.ASKED_WHO: _of("no tracker names neighbours: asked ", " for some"),
    Kind.TOLD_WHO: lambda e, s: f"{host_text(s, e.host)} named {counted(e.count, 'neighbour')}",
    Kind.TURNED_TO: _turned,
    Kind.OUTSIDE: lambda e, s: (
        f"a reader went past the swarm, on from the {outside(e.host)}: "
        f"{OUTSIDE.get(e.text, e.text)}"
    ),
    Kind.COMING: _plain("a proxy said that it is bringing it in"),
    Kind.MAP: lambda e, s: (
        f"its map came{f', {e.text}' if e.text else ''}: {counted(e.count, 'chunk')}"
    ),
    Kind.MAP_SWITCHED: lambda e, s: f"took the map of another proxy: {counted(e.count, 'chunk')}",
    Kind.MAP_REFUSED: _plain("the disk did not take what was said of its map"),
    Kind.SEALED: _plain("the map was sealed: the registry's bytes have the digest"),
    Kind.REVOKED: _plain("the map was revoked: the registry's bytes did not have the digest"),
    Kind.HAD: lambda e, s: f"{counted(e.count, 'chunk')} lay here already",
    Kind.CHUNKS: _chunks,
    Kind.BAD: _of("wrong bytes from "),
    Kind.PUNISHED: lambda e, s: f"counted against {host_text(s, e.host)}: {e.text}{times(e.count)}",
    Kind.REFUSED: _refused,
    Kind.RETRACTED: _of("", " took back what it had offered"),
    Kind.HEDGED: _of("asked ", " as well for what a reader waits for"),
    Kind.STOLEN: _of("took from ", ", which was slow, what another brings sooner"),
    Kind.STALLED: _of("gave up on ", ", which was silent"),
    Kind.ESCAPED: _of("nobody offered: asked ", " for what it had not offered"),
    Kind.HUNGRY: _plain("told the proxy that the peers are slow"),
    Kind.HELD: lambda e, s: f"the pace held it back for {seconds(e.for_s)}",
    Kind.SILENCE: _silence,
    Kind.OPENED: lambda e, s: f"opened{' for a part of it' if e.text else ''}{times(e.count)}",
    Kind.WAITED: _waited,
    Kind.LEFT: _plain("a reader left"),
    Kind.WANTED_BY: lambda e, s: f"wanted by other hosts{times(e.count)}",
    Kind.ROTTED: lambda e, s: f"{counted(e.count, 'chunk')} had rotted on the disk",
    Kind.UNKEPT: lambda e, s: f"the disk did not take it: {e.text}",
    Kind.WHOLE: _plain("whole"),
    Kind.FAILED: lambda e, s: f"failed: {e.text}",
    Kind.LET_GO: _plain("nobody wanted it any more"),
}
