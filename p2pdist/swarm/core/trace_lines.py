"""The lines of a trace: what one host heard and decided, one JSON object each.

    {"t":1.5,"host":"ab…","what":"AskRun","blob":"sha256:12ab34cd","link":3,"request":7,…}

Sets of chunks are runs: pairs of the first chunk and how many. Daemons write the same lines
as simulated hosts; `python -m bench.sim replay FILE` checks them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from p2pdist.exchange import frames as fr
from p2pdist.model.bits import ranges
from p2pdist.model.ids import Digest, HostId, MapId
from p2pdist.model.private_digests import is_private
from p2pdist.swarm.core import host_orders as orders

VERSION: Final = 1


class Line(msgspec.Struct, omit_defaults=True):
    """One thing that happened; `what` says which of the fields count."""

    t: float
    """Monotonic seconds of its host, of the event that led to it."""
    host: str
    what: str
    blob: str = ""
    """The beginning of its digest."""
    size_bytes: int = 0
    link: int = 0
    """Counted up per host; 0: none."""
    links: list[int] = []
    peer: str = ""
    """The host id at the other end."""
    role: str = ""
    dc: str = ""
    map: str = ""
    frame: str = ""
    """What was heard, or is said."""
    request: int = 0
    first: int = 0
    count: int = 0
    runs: list[tuple[int, int]] = []
    """First chunk and number of chunks; of what was heard, as it was said: perhaps nonsense."""
    chunk: int = 0
    good: bool = False
    sealed: bool = False
    whole: bool = False
    gone: bool = False
    why: str = ""
    chunk_size_bytes: int = 0
    reader: int = 0
    """Counted up per motion of a blob."""
    start: int = 0
    stop: int = 0
    """Bytes of the blob: where a reader is, what goes out to it, where the part ends that it
    demands (0: it is no such reader)."""
    left_out: int = 0
    """Lines before this one that there was no room for."""
    unix_s: float = 0.0
    version: int = 0


def short(digest: Digest) -> str:
    """Enough to tell the blobs of one host apart; private ones of a repository begin alike."""
    algorithm, _, encoded = digest.partition(":")
    return f"{algorithm}:{encoded[-16:] if is_private(digest) else encoded[:16]}"


def runs_of(bits: int) -> list[tuple[int, int]]:
    """The set in which bit 0 stands for chunk 0."""
    return list(ranges(bits))


def map_name(map_id: MapId) -> str:
    return map_id.hex()


def began(host: HostId, t: float, *, role: str, dc: str, unix_s: float = 0.0) -> Line:
    """The first line of a run of a host."""
    return Line(t, host, "began", role=role, dc=dc, unix_s=unix_s, version=VERSION)


def fill_frame(line: Line, frame: fr.Frame) -> None:
    """Say in `line` what `frame` says."""
    line.frame = type(frame).__name__
    match frame:
        case fr.Interest(digest) | fr.Uninterest(digest) | fr.Retract(digest) | fr.Working(digest):
            line.blob = short(digest)
        case fr.WhoElse(digest):
            line.blob = short(digest)
        case fr.Others(digest, members):
            line.blob, line.count = short(digest), len(members)
        case fr.Offer(digest, map_id, runs):
            line.blob, line.map, line.runs = short(digest), map_name(map_id), list(runs)
        case fr.Refuse(request_id, reason):
            line.request, line.why = request_id, str(int(reason))
        case fr.MapRecord(record):
            line.size_bytes = len(record)
        case _:
            pass


def fill_order(line: Line, order: orders.Order) -> None:
    """Say in `line` what `order` orders, beside the link."""
    match order:
        case orders.Send(_, frame) | orders.SendAll(_, frame):
            fill_frame(line, frame)
        case orders.AskRun(_, request):
            line.blob, line.map = short(request.digest), map_name(request.map_id)
            line.request, line.first, line.count = request.request_id, request.first, request.count
        case orders.TakeBack(_, request_id):
            line.request = request_id
        case orders.CloseLink(_, why):
            line.why = why
        case orders.CountFault(_, fault):
            line.why = fault.reason
        case orders.JoinSwarm(digest, exclude):
            line.blob, line.count = short(digest), len(exclude)
        case orders.Meet(digest, members):
            line.blob, line.count = short(digest), len(members)
        case orders.NoteHeld(digest, chunks, whole):
            line.blob, line.count, line.whole = short(digest), chunks, whole
        case orders.Deliver(digest, bits):
            line.blob, line.runs = short(digest), [] if bits is None else runs_of(bits)
        case orders.Fail(digest, why):
            line.blob, line.why = short(digest), why
        case orders.FollowMap(chunk_map):
            line.blob, line.map = short(chunk_map.digest), map_name(chunk_map.map_id)
        case orders.KeepRecords(digest, records):
            line.blob, line.count = short(digest), len(records)
        case (
            orders.LeaveSwarm(digest)
            | orders.Provide(digest)
            | orders.SyncBlob(digest)
            | orders.RemoveBlob(digest)
        ):
            line.blob = short(digest)
