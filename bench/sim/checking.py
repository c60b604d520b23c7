"""What must hold in every trace, whoever wrote it: of a daemon, or of simulated hosts.

Nothing of the cores is used here: each host's words are held against what it heard and got.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from p2pdist.swarm.core.trace_lines import VERSION, Line

CHUNKS_MAX: Final = 1 << 22
"""Of a blob; more is no trace of ours."""
FAULTS_MAX: Final = 1000
READERS_MAX: Final = 1 << 16
"""Of one blob, at a time."""


class NoTrace(ValueError):
    """A line that no host wrote."""


def name(host: str) -> str:
    """A host for people: enough of its id; those of simulations begin with zeros."""
    return host.lstrip("0")[:8]


@dataclass(slots=True)
class Asked:
    """One request for a run of chunks, while it is open."""

    blob: str
    link: int
    bits: int
    """What has not come yet."""


@dataclass(slots=True)
class Motion:
    """One motion of one blob, from `take_up` to `let_go`."""

    host: str
    blob: str
    began_s: float
    size_bytes: int
    map: str = ""
    chunks: int = 0
    known: int = 0
    sealed: bool = False
    seal_heard: bool = False
    """It counts from then on, and is on disk when it is `sealed`."""
    held: int = 0
    member: bool = False
    failed: bool = False
    whole_s: float | None = None
    asked: int = 0
    """Chunks; each as often as it was asked for."""
    taken_back: int = 0
    refused: int = 0
    wrong: int = 0
    twice: int = 0
    chunk_size_bytes: int = 0
    readers: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Of each: where it waits, and where it did before what went out to it last."""
    sources: Counter[str] = field(default_factory=Counter)
    """Chunks by the host that they came from."""

    @property
    def whole(self) -> bool:
        counts = self.sealed or self.seal_heard
        return counts and bool(self.chunks) and self.held == (1 << self.chunks) - 1


@dataclass(slots=True)
class Host:
    """What one host is known to have heard, and to be about."""

    links: dict[int, str] = field(default_factory=dict)
    """Those that are up, and who is at the other end."""
    ever: dict[int, str] = field(default_factory=dict)
    requests: dict[int, Asked] = field(default_factory=dict)
    """Those that are open."""
    motions: dict[str, Motion] = field(default_factory=dict)
    now_s: float = float("-inf")
    cut: bool = False
    """Lines are missing: nothing more can be said of it."""


class Checker:
    """Takes the lines of any number of hosts, each host's in their order.

    Cost per line: a few operations on integers of one bit a chunk, and a step for each request that
    its host has open.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.lines = 0
        self.left_out = 0
        self.motions: list[Motion] = []
        """All that were begun, in that order."""
        self._hosts: dict[str, Host] = {}
        self._line = Line(0.0, "", "")
        self._takes: dict[str, Callable[[Host, Line], None]] = {
            "link_up": self._link_up,
            "link_down": self._link_down,
            "take_up": self._take_up,
            "let_go": self._let_go,
            "map_followed": self._map_followed,
            "map_grew": self._map_grew,
            "map_sealed": self._map_sealed,
            "landed": self._landed,
            "lost": self._lost,
            "arrived": self._arrived,
            "fail": self._fail,
            "reader_at": self._reader_at,
            "goes_out": self._goes_out,
            "reader_left": self._reader_left,
            "readers_unsaid": self._readers_unsaid,
            "hear": self._hear,
            "AskRun": self._ask_run,
            "TakeBack": self._take_back,
            "Send": self._send,
            "SendAll": self._send,
            "NoteHeld": self._note_held,
            "JoinSwarm": self._join,
            "LeaveSwarm": self._leave,
        }

    @property
    def hosts(self) -> int:
        return len(self._hosts)

    def take(self, line: Line) -> None:
        """Raises NoTrace."""
        self.lines += 1
        self._line = line
        if line.what == "began":
            if line.version != VERSION:
                raise NoTrace(f"a trace of version {line.version}; this reads {VERSION}")
            self._hosts[line.host] = Host(now_s=line.t)
            return
        host = self._hosts.get(line.host)
        if line.left_out:
            self.left_out += line.left_out
            for each in self._hosts.values() if host is None else [host]:
                each.cut = True
            return
        if host is None:
            raise NoTrace(f"nothing says when {name(line.host) or 'its host'} began")
        if host.cut:
            return
        self._must(line.t >= host.now_s, "its clock went back")
        host.now_s = line.t
        if (take := self._takes.get(line.what)) is not None:
            take(host, line)

    def _must(self, holds: bool, else_: str) -> None:
        if not holds and len(self.faults) < FAULTS_MAX:
            line = self._line
            about = f" {line.blob}" if line.blob else ""
            self.faults.append(
                f"line {self.lines}, host {name(line.host)} at {line.t:.6f} s,"
                f" {line.what}{about}: {else_}"
            )

    # --- links ----------------------------------------------------------------------------------

    def _link_up(self, host: Host, line: Line) -> None:
        """Of dials that cross, the second link may be up before the end of the first is heard."""
        self._must(line.link not in host.ever, "it was up before")
        host.links[line.link] = host.ever[line.link] = line.peer

    def _link_down(self, host: Host, line: Line) -> None:
        host.links.pop(line.link, None)
        for number in [n for n, asked in host.requests.items() if asked.link == line.link]:
            del host.requests[number]

    def _hear(self, host: Host, line: Line) -> None:
        self._must(line.link in host.links or not line.link, "heard on a link that is down")
        if line.frame == "Seal":
            for each in host.motions.values():
                each.seal_heard |= each.map == line.map
        if line.frame == "Refuse":
            asked = host.requests.get(line.request)
            if asked is not None and asked.link == line.link:
                del host.requests[line.request]
                if (motion := host.motions.get(asked.blob)) is not None:
                    motion.refused += 1

    # --- blobs ----------------------------------------------------------------------------------

    def _motion(self, host: Host) -> Motion:
        motion = host.motions.get(self._line.blob)
        if motion is None:
            self._must(False, "of a blob that is not in motion")
            motion = Motion(self._line.host, self._line.blob, self._line.t, 0)
        return motion

    def _take_up(self, host: Host, line: Line) -> None:
        self._must(line.blob not in host.motions, "it was in motion")
        motion = Motion(line.host, line.blob, line.t, line.size_bytes)
        host.motions[line.blob] = motion
        self.motions.append(motion)

    def _let_go(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        self._must(not motion.member, "it is let go and still a member of its swarm")
        still = any(asked.blob == line.blob for asked in host.requests.values())
        self._must(not still, "let go with requests open")
        host.motions.pop(line.blob, None)

    def _map_followed(self, host: Host, line: Line) -> None:
        if not 0 < line.count <= CHUNKS_MAX:
            raise NoTrace("a blob of so many chunks")
        motion = self._motion(host)
        motion.seal_heard &= motion.map == line.map
        motion.map, motion.chunks, motion.sealed = line.map, line.count, line.sealed
        motion.size_bytes = line.size_bytes
        motion.chunk_size_bytes = line.chunk_size_bytes
        motion.known, motion.held = self._set(line, motion), 0

    def _map_grew(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        motion.known |= self._set(line, motion)

    def _map_sealed(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        motion.sealed = True
        self._must(motion.known.bit_count() == motion.chunks, "sealed with hashes missing")
        self._end(motion)

    def _landed(self, host: Host, line: Line) -> None:
        """What no map vouches for lies there and does not count."""
        motion = self._motion(host)
        motion.held |= self._set(line, motion) & motion.known
        self._end(motion)

    def _end(self, motion: Motion) -> None:
        if motion.whole and motion.whole_s is None:
            motion.whole_s = self._line.t

    def _lost(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        motion.held &= ~self._set(line, motion)

    def _fail(self, host: Host, line: Line) -> None:
        self._motion(host).failed = True

    # --- readers --------------------------------------------------------------------------------

    def _reader_at(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        if len(motion.readers) >= READERS_MAX:
            raise NoTrace("a blob with so many readers")
        motion.readers[line.reader] = line.start, line.start

    def _reader_left(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        left = motion.readers.pop(line.reader, None)
        self._must(left is not None, "a reader left that was not there")

    def _readers_unsaid(self, host: Host, line: Line) -> None:
        self._motion(host).readers.clear()

    def _goes_out(self, host: Host, line: Line) -> None:
        """What had rotted when it was read once more goes out again."""
        motion = self._motion(host)
        at = motion.readers.get(line.reader)
        if at is None:
            self._must(False, "bytes go out to a reader that is not there")
            return
        self._must(line.start in at, "bytes go out in another order than they are read in")
        self._must(not motion.failed, "bytes go out of a blob that has failed")
        motion.readers[line.reader] = line.stop, line.start
        cut = motion.chunk_size_bytes
        if not 0 <= line.start < line.stop <= motion.size_bytes or cut <= 0:
            self._must(False, "bytes go out that the blob has not")
            return
        first, stop = line.start // cut, -(-line.stop // cut)
        bits = ((1 << (stop - first)) - 1) << first
        self._must(not bits & ~motion.held, "bytes go out that are not here")
        sealed = motion.sealed or motion.seal_heard
        self._must(sealed or stop < motion.chunks, "its last bytes go out before the seal")

    def _set(self, line: Line, motion: Motion) -> int:
        """The chunks of the blob that `line` is about."""
        bits = 0
        for first, count in line.runs:
            within = first >= 0 and count > 0 and first + count <= motion.chunks
            self._must(within, "chunks behind the end of the blob")
            if within:
                bits |= ((1 << count) - 1) << first
        return bits

    # --- what is asked for ----------------------------------------------------------------------

    def _ask_run(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        if not 0 < line.count <= CHUNKS_MAX or not 0 <= line.first <= CHUNKS_MAX:
            raise NoTrace("no run of chunks")
        bits = ((1 << line.count) - 1) << line.first
        self._must(line.link in host.links, "asked on a link that is down")
        self._must(not motion.failed, "asked for a blob that has failed")
        self._must(line.map == motion.map, "asked under a map that is not followed")
        self._must(not bits & ~motion.known, "asked for chunks whose hashes are not known")
        self._must(not bits & motion.held, "asked for chunks that are here")
        self._must(line.request not in host.requests, "its number is that of an open request")
        once = twice = 0
        for other in host.requests.values():
            if other.blob == line.blob and other.bits & bits:
                self._must(other.link != line.link, "asked the same of a host twice")
                twice |= once & other.bits
                once |= other.bits
        self._must(not twice & bits, "asked of a third host at a time")
        motion.asked += line.count
        host.requests[line.request] = Asked(line.blob, line.link, bits)

    def _take_back(self, host: Host, line: Line) -> None:
        asked = host.requests.pop(line.request, None)
        if asked is None:
            self._must(False, "took back what was not asked for")
            return
        self._must(asked.link == line.link, "took it back from another host")
        if (motion := host.motions.get(asked.blob)) is not None:
            motion.taken_back += asked.bits.bit_count()

    def _arrived(self, host: Host, line: Line) -> None:
        motion, bit = self._motion(host), 1 << min(line.chunk, CHUNKS_MAX)
        asked = host.requests.get(line.request)
        if asked is not None and asked.link == line.link:
            self._must(bool(asked.bits & bit), "a chunk that was not asked for")
            asked.bits &= ~bit
            if not asked.bits:
                del host.requests[line.request]
        if not line.good:
            motion.wrong += 1
        elif motion.held & bit:
            motion.twice += 1
        else:
            motion.sources[host.ever.get(line.link, "")] += 1

    # --- what is said ---------------------------------------------------------------------------

    def _send(self, host: Host, line: Line) -> None:
        if line.frame != "Offer":
            return
        motion = self._motion(host)
        self._must(line.map == motion.map, "offered under a map that is not followed")
        bits = self._set(line, motion)
        self._must(not bits & ~motion.held, "offered chunks that are not here")

    def _note_held(self, host: Host, line: Line) -> None:
        motion = host.motions.get(line.blob)
        if motion is None or not line.count:
            return
        self._must(line.count <= motion.held.bit_count(), "told the tracker of more than is here")
        self._must(motion.whole or not line.whole, "told the tracker that it is whole")

    def _join(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        self._must(motion.member == bool(line.count) or not line.count, "asked without joining")
        motion.member = True

    def _leave(self, host: Host, line: Line) -> None:
        motion = self._motion(host)
        self._must(motion.member, "left a swarm that it was not in")
        motion.member = False
