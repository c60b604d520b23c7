"""What happened to each blob in motion, for whoever asks later why a pull took the way it took.

Bounded: `BLOBS_MAX` motions of `ENTRIES_MAX` entries with the longest texts are 16 MB; those of a
usual pull, 30 entries each, less than one. An entry is a plain value;
what happens again to the same host within a stretch of time is counted and not repeated, and the
stretch grows with the age of the motion, so that a chunk costs two microseconds and no memory.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from p2pdist.model.ids import Digest

BLOBS_MAX: Final = 64
ENTRIES_MAX: Final = 512
FIRST_MAX: Final = 128
"""Of a motion's entries the first so many stay: how it began is what is asked for most."""
SOURCES_MAX: Final = 64
"""Hosts that are counted one by one, twice what a handout names; all others are one source."""
TEXT_MAX: Final = 120
STRETCH_S: Final = 1.0
STRETCH_SHARE: Final = 0.5
"""Of the age of a motion: an hour is about 20 stretches."""
OPEN_MAX: Final = 256
"""Entries that may still be counted up."""
SILENCE_S: Final = 0.5
"""Nothing that came for so long is a silence; a lost datagram costs less."""


class Kind(enum.StrEnum):
    """What an entry says; `host` is who did it, where that is a host or a registry."""

    JOINED = "joined"
    NAMED = "named"
    """The tracker named `count` neighbours."""
    UNREACHED = "unreached"
    NEIGHBOUR = "neighbour"
    TURNED_AWAY = "turned_away"
    DOWN = "down"
    PARTED = "parted"
    FURTHER = "further"
    """The neighbours did not suffice."""
    ASKED_WHO = "asked_who"
    """No tracker names neighbours: the proxy `host` is asked to."""
    TOLD_WHO = "told_who"
    """It named `count`."""
    TURNED_TO = "turned_to"
    """Another kind of source is tried: `text`, and why."""
    OUTSIDE = "outside"
    """A reader goes on from `host`, outside of the swarm, because of `text`."""
    COMING = "coming"
    """A proxy says that it brings it in."""
    MAP = "map"
    """A map of `count` chunks is followed."""
    MAP_SWITCHED = "map_switched"
    MAP_REFUSED = "map_refused"
    SEALED = "sealed"
    REVOKED = "revoked"
    HAD = "had"
    CHUNKS = "chunks"
    BAD = "bad"
    PUNISHED = "punished"
    REFUSED = "refused"
    RETRACTED = "retracted"
    HEDGED = "hedged"
    STOLEN = "stolen"
    STALLED = "stalled"
    ESCAPED = "escaped"
    HUNGRY = "hungry"
    HELD = "held"
    """The pace of bulk, or its gate, let nothing be asked for."""
    SILENCE = "silence"
    """Nothing came for `for_s`, for lack of what `text` says."""
    OPENED = "opened"
    WAITED = "waited"
    """Readers of this host waited for bytes, `for_s` together."""
    LEFT = "left"
    WANTED_BY = "wanted_by"
    ROTTED = "rotted"
    UNKEPT = "unkept"
    WHOLE = "whole"
    FAILED = "failed"
    LET_GO = "let_go"


class Lack(enum.StrEnum):
    """What a blob waits for while nothing comes."""

    NEIGHBOUR = "neighbour"
    MAP = "map"
    HASHES = "hashes"
    OFFER = "offer"
    PACE = "pace"
    REGISTRY = "registry"
    ANSWER = "answer"
    """It was asked for."""


class Entry(msgspec.Struct, omit_defaults=True):
    """Times are seconds since the blob was taken up."""

    at_s: float
    kind: Kind
    host: str = ""
    text: str = ""
    count: int = 1
    nbytes: int = 0
    for_s: float = 0.0
    until_s: float = 0.0
    """When it happened last, where that is later than `at_s`."""


class Source(msgspec.Struct, omit_defaults=True):
    """Verified payload of one host, or of all that had no place of their own (`host` empty)."""

    host: str
    label: str
    """`rack`, `dc`, `proxy`, `wan` or `upstream`."""
    address: str = ""
    chunks: int = 0
    nbytes: int = 0
    first_s: float = 0.0
    last_s: float = 0.0
    bad: int = 0
    """Chunks with wrong bytes."""


class Story(msgspec.Struct, omit_defaults=True):
    """One motion of a blob, as it is told."""

    digest: str
    size_bytes: int
    wanted: bool
    """Something of it was sought here; else it only went out to others."""
    age_s: float
    """Since it was taken up."""
    outcome: str
    """`whole`, `failed`, `let_go` or `under_way`."""
    ended_s: float | None
    sources: list[Source]
    lacks: dict[str, float]
    """Seconds of silence by what was lacking."""
    held_s: float
    waited_s: float
    peak_bytes_per_s: float
    """The best whole second."""
    entries: list[Entry]
    left_out: int
    """Entries there was no room for, after the first ones."""
    began_unix_s: float = 0.0


class BlobLog:
    """One motion of one blob. Pure: time enters as monotonic `now_s`."""

    def __init__(self, digest: Digest, size_bytes: int, now_s: float) -> None:
        self.digest = digest
        self.size_bytes = size_bytes
        self.began_s = now_s
        self.wanted = False
        """Something of it was sought here; else it only goes out to others."""
        self.reads_registry = False
        """What it lacks is read from outside."""
        self._outcome: Kind | None = None
        self._ended_s: float | None = None
        self._first: list[Entry] = []
        self._last: deque[Entry] = deque(maxlen=ENTRIES_MAX - FIRST_MAX)
        self._left_out = 0
        self._open: dict[tuple[Kind, str, str], Entry] = {}
        self._sources: dict[str, Source] = {}
        self._closed = False
        self._held_s = self._waited_s = 0.0
        self._silence = _Silence()
        self._lacks: dict[str, float] = {}
        self._second = -1
        self._second_bytes = self._peak_bytes = 0

    @property
    def over(self) -> bool:
        return self._outcome is not None

    @property
    def outcome(self) -> str:
        """`whole`, `failed`, `let_go` or `under_way`."""
        return self._outcome or "under_way"

    @property
    def fetched_bytes(self) -> int:
        return sum(source.nbytes for source in self._sources.values())

    def close(self) -> None:
        """Give the room back; what happens from now on is not kept."""
        self._closed = True
        self._first, self._left_out = [], 0
        self._last.clear()
        self._open.clear()
        self._sources.clear()

    # --- entries --------------------------------------------------------------------------------

    def note(
        self,
        kind: Kind,
        now_s: float,
        *,
        host: str = "",
        text: str = "",
        count: int = 1,
        nbytes: int = 0,
        for_s: float = 0.0,
    ) -> None:
        """Keep that it happened, as an entry of its own or as one more of the same."""
        at_s, text = now_s - self.began_s, text[:TEXT_MAX]
        key = kind, host, text
        entry = self._open.get(key)
        if entry is None or at_s - entry.at_s > max(STRETCH_S, STRETCH_SHARE * entry.at_s):
            self._add(key, Entry(at_s, kind, host, text, count, nbytes, for_s))
            return
        entry.count += count
        entry.nbytes += nbytes
        entry.for_s += for_s
        entry.until_s = at_s

    def _add(self, key: tuple[Kind, str, str], entry: Entry) -> None:
        if self._closed:
            return
        if len(self._open) >= OPEN_MAX:
            self._open.clear()
        self._open[key] = entry
        if len(self._first) < FIRST_MAX:
            self._first.append(entry)
            return
        self._left_out += len(self._last) == self._last.maxlen
        self._last.append(entry)

    def held(self, for_s: float, now_s: float) -> None:
        """The pace, or its gate, lets nothing be asked for in the next `for_s`."""
        self._held_s += for_s
        self.note(Kind.HELD, now_s, for_s=for_s)

    def waited(self, for_s: float, offset: int, now_s: float) -> None:
        """A reader of this host waited for the byte at `offset`."""
        self._waited_s += for_s
        if for_s >= SILENCE_S:
            self.note(Kind.WAITED, now_s, nbytes=offset, for_s=for_s)

    def turned_to(self, source: str, now_s: float, *, host: str = "") -> None:
        """Another source is tried: `registry` (`host` is which), `swarm`, `parents` and so on."""
        self.reads_registry = source == "registry"
        if self.over or not self.wanted:
            self.sought(now_s)
        self.note(Kind.TURNED_TO, now_s, host=host, text=source)

    # --- sources --------------------------------------------------------------------------------

    def received(
        self, host: str, label: str, nbytes: int, now_s: float, address: Callable[[], str]
    ) -> None:
        """A chunk, or a piece of a body, came and was new. `address` is asked once for a host."""
        source = self._source(host, label, now_s, address)
        source.chunks += 1
        source.nbytes += nbytes
        source.last_s = now_s - self.began_s
        self.note(Kind.CHUNKS, now_s, host=source.host, text=source.label, nbytes=nbytes)
        second = int(now_s)
        if second != self._second:
            self._second, self._second_bytes = second, 0
        self._second_bytes += nbytes
        self._peak_bytes = max(self._peak_bytes, self._second_bytes)

    def bad(self, host: str, label: str, now_s: float, address: Callable[[], str]) -> None:
        """A chunk came with wrong bytes."""
        self._source(host, label, now_s, address).bad += 1
        self.note(Kind.BAD, now_s, host=host)

    def _source(self, host: str, label: str, now_s: float, address: Callable[[], str]) -> Source:
        key = host or label
        source = self._sources.get(key)
        if source is None and len(self._sources) >= SOURCES_MAX:
            key, host, address = f"others {label}", "", str
            source = self._sources.get(key)
        if source is None:
            source = Source(host, label, address(), first_s=now_s - self.began_s)
            if not self._closed:
                self._sources[key] = source
        return source

    # --- silence --------------------------------------------------------------------------------

    def sought(self, now_s: float) -> None:
        """From here on something is to come: silence counts."""
        self.wanted = True
        self._outcome = self._ended_s = None
        self._silence.begin(now_s)

    def looked(self, lack: Callable[[], tuple[Lack, str]], now_s: float) -> None:
        """Nothing came since it was looked at last; asked for `lack` where that may be silence."""
        self._silence.look(lack, now_s)

    def progressed(self, lack: Callable[[], tuple[Lack, str]], now_s: float) -> None:
        """Something came. `lack`: what was lacking until now, and of whom."""
        if self.over or not self.wanted:
            return  # what nobody seeks may come or not
        silence = self._silence
        if now_s - silence.since_s >= SILENCE_S:
            silence.look(lack, now_s)
            self._end_silence(now_s)
        silence.begin(now_s)

    def _end_silence(self, now_s: float) -> None:
        silence = self._silence
        for (lack, _), seconds in silence.by_lack.items():
            self._lacks[lack] = self._lacks.get(lack, 0.0) + seconds
        lack, host = silence.most()
        began_s = silence.since_s
        self.note(Kind.SILENCE, began_s, host=host, text=lack, for_s=now_s - began_s)

    # --- ends -----------------------------------------------------------------------------------

    def end(self, how: Kind, now_s: float, text: str = "") -> None:
        """It is whole, failed, or was let go; of several ends the first counts."""
        if self._outcome is None:
            self._outcome, self._ended_s = how, now_s - self.began_s
            self._silence.stop()
            self.note(how, now_s, text=text)

    def story(self, now_s: float) -> Story:
        """All that is kept, in the order in which it began; the entries are not to be changed."""
        entries = sorted([*self._first, *self._last], key=lambda entry: entry.at_s)
        lacks, since_s = dict(self._lacks), self._silence.since_s
        if now_s - since_s >= SILENCE_S:
            lack, host = self._silence.most()
            lacks[lack] = lacks.get(lack, 0.0) + now_s - since_s
            at_s = since_s - self.began_s
            still = Entry(at_s, Kind.SILENCE, host, lack, for_s=now_s - since_s)
            entries.append(still)
        return Story(
            self.digest,
            self.size_bytes,
            self.wanted,
            age_s=now_s - self.began_s,
            outcome=self.outcome,
            ended_s=self._ended_s,
            sources=sorted(self._sources.values(), key=lambda source: -source.nbytes),
            lacks=lacks,
            held_s=self._held_s,
            waited_s=self._waited_s,
            peak_bytes_per_s=self._peak_bytes,
            entries=entries,
            left_out=self._left_out,
        )


class _Silence:
    """The time since something came, by what was lacking meanwhile."""

    def __init__(self) -> None:
        self.since_s = math.inf
        self.by_lack: dict[tuple[Lack, str], float] = {}
        self._looked_s = math.inf
        self._lack: tuple[Lack, str] | None = None

    def begin(self, now_s: float) -> None:
        self.since_s = self._looked_s = now_s
        if self.by_lack:
            self.by_lack = {}
        self._lack = None

    def stop(self) -> None:
        self.begin(math.inf)

    def look(self, lack: Callable[[], tuple[Lack, str]], now_s: float) -> None:
        """Count the time since the last look for what was lacking then."""
        if now_s <= self._looked_s:
            return
        before = self._lack or lack()
        self.by_lack[before] = self.by_lack.get(before, 0.0) + now_s - self._looked_s
        self._looked_s, self._lack = now_s, lack()

    def most(self) -> tuple[Lack, str]:
        """What was lacking for most of it."""
        if not self.by_lack:
            return Lack.MAP, ""
        return max(self.by_lack, key=lambda lack: self.by_lack[lack])


class EventLog:
    """The last motions of one host's blobs."""

    def __init__(self) -> None:
        self._logs: list[BlobLog] = []

    def begin(self, digest: Digest, size_bytes: int, now_s: float) -> BlobLog:
        """Take up another one; those go first that only went out to others, then those that are
        over, then the oldest."""
        if len(self._logs) >= BLOBS_MAX:
            gone = min(self._logs, key=lambda log: (log.wanted, not log.over, log.began_s))
            gone.close()
            self._logs.remove(gone)
        log = BlobLog(digest, size_bytes, now_s)
        self._logs.append(log)
        return log

    def logs(self) -> list[BlobLog]:
        """The newest first."""
        return self._logs[::-1]
