"""What of a blob's events goes to its log, in the log's own words."""

from __future__ import annotations

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.members import Member, Place
from p2pdist.swarm.core.asking import Asking
from p2pdist.swarm.core.event_log import BlobLog, Kind, Lack
from p2pdist.swarm.counters import source_of


def lack(log: BlobLog, asking: Asking, chunk_map: ChunkMap | None, held: int) -> tuple[Lack, str]:
    """What keeps a blob from coming now, and the host that was asked for it."""
    if (host := asking.asked_of) is not None:
        return Lack.ANSWER, host
    if log.reads_registry:
        return Lack.REGISTRY, ""
    if not asking.any:
        return Lack.NEIGHBOUR, ""
    if chunk_map is None:
        return Lack.MAP, ""
    if asking.held:
        return Lack.PACE, ""
    return (Lack.OFFER if chunk_map.known.bits & ~held else Lack.HASHES), ""


def note_map(log: BlobLog, chunk_map: ChunkMap, held: int, now_s: float, *, switched: bool) -> None:
    """A map is followed; `held` of its chunks lie here already."""
    geometry = chunk_map.geometry
    log.size_bytes = geometry.size_bytes
    kind = Kind.MAP_SWITCHED if switched else Kind.MAP
    text = "sealed" if chunk_map.sealed else ""
    log.note(kind, now_s, text=text, count=geometry.chunk_count)
    if held:
        log.note(Kind.HAD, now_s, count=held.bit_count())


def note_chunk(
    log: BlobLog, member: Member, here: Place, nbytes: int, now_s: float, *, good: bool
) -> None:
    """A chunk of `member` was checked that did not lie here."""
    label = source_of(member, here)
    if good:
        log.received(member.host_id, label, nbytes, now_s, lambda: _address(member))
    else:
        log.bad(member.host_id, label, now_s, lambda: _address(member))


def _address(member: Member) -> str:
    return str(member.addresses[0]) if member.addresses else ""
