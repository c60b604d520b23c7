"""What is said about one blob, taken in in its order: a head may have to wait for the disk.

| said | what follows |
| --- | --- |
| a head, of the map to follow | FollowMap; all else waits until it was, or could not be |
| hashes, a seal of the followed map | KeepRecords, of all that wait; the rest waits for the disk |
| a revocation | the map is left, or never followed |
| an offer, a retraction | taken in at once where nothing waits |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from p2pdist.errors import PeerFault
from p2pdist.exchange.frames import Offer, Retract
from p2pdist.model.chunkmap import ChunkMap, MapState
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.statements import HashBatch, MapHead, Revocation, Seal
from p2pdist.swarm.core.fair_queue import FairQueue
from p2pdist.swarm.core.host_orders import CloseLink, FollowMap, KeepRecords
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.maps import MapChoice

WAITING_MAX: Final = 4096
"""Of what is not signed: offers and retractions of up to 48 neighbours."""
SIGNED_MAX: Final = 1 << 17
"""Of different signed statements: a map that was made slowly has one for each chunk. All neighbours
pass the same ones on, which is no reason to part with any of them."""
KEPT_AT_ONCE: Final = 256
"""A write of one record took 3 to 40 ms on a busy host; so many are 600 kB at most."""

MapStatement = MapHead | HashBatch | Seal | Revocation
Said = MapStatement | Offer | Retract


class StatementListener(Protocol):
    """Hears what becomes of the map, and of offers, in order."""

    @property
    def complete(self) -> bool: ...

    def hears_the_map(self, link: LinkState) -> None:
        """`link` told us of the map that is followed."""
        ...

    def map_grew(self, record: bytes, bits: int, held: int, now_s: float) -> None:
        """It vouches for the chunks of `bits` now; `held` of the blob's chunks lie here."""
        ...

    def map_sealed(self, record: bytes, now_s: float) -> None: ...

    def map_revoked(self, record: bytes, now_s: float) -> None: ...

    def take_offer(self, link: LinkState, offer: Offer, now_s: float) -> None:
        """Raises PeerFault for chunks outside of the blob."""
        ...

    def take_retract(self, link: LinkState, now_s: float) -> None: ...


class _Keeping(NamedTuple):
    """Statements that the map took in, on their way to the disk, with their records."""

    chunk_map: ChunkMap
    said: list[tuple[HashBatch | Seal, bytes]]


class Statements:
    """Pure. A bounded queue; the link that fills it is closed."""

    def __init__(self, host: HostPorts, digest: Digest, listener: StatementListener) -> None:
        self.map: ChunkMap | None = None
        """The one that is followed."""
        self._host = host
        self._digest = digest
        self._listener = listener
        self._choice = MapChoice()
        self._queue: FairQueue[LinkState, tuple[Said, bytes]] = FairQueue(
            WAITING_MAX, alike_max=SIGNED_MAX
        )
        self._pending: ChunkMap | _Keeping | None = None
        """What the disk was ordered to take, and has not yet."""
        self._gathered: _Keeping | None = None
        """What it is to be ordered to take when no more goes with it."""
        self._rival: ChunkMap | None = None
        """The one that is to take the place of a map that stands still."""
        self.disbelieved = False
        """The map that is followed was signed by a key that is not believed any more."""

    @property
    def settled(self) -> bool:
        """All that was said has been taken in."""
        return not self._queue and self._pending is None

    def follows(self, map_id: MapId) -> bool:
        return self.map is not None and self.map.map_id == map_id

    def hear(self, link: LinkState | None, said: Said, record: bytes, now_s: float) -> None:
        """Take in what `link` said (None: our own ingest), now or in its turn."""
        if self.settled:
            self._take_in([link], said, record, now_s)
            self._order_keeping()
            return
        if isinstance(said, HashBatch) and self._known_already(said):
            self._heard_of(said.map_id, [link])
            return
        sheltered = link is not None and self._host.configured_proxy(link)
        key = record or None
        loudest = self._queue.put(link, (said, record), key=key, sheltered=sheltered)
        if loudest is not None:
            why = "says more about a blob than we can take in"
            self._host.orders.append(CloseLink(loudest, why))

    def go_on(self, now_s: float) -> None:
        """Take in what waits, until something has to wait for the disk again."""
        while self._queue and self._may_take_in(self._queue.head[0]):
            links, (said, record) = self._queue.pop()
            self._take_in(links, said, record, now_s)
        self._order_keeping()

    def _may_take_in(self, said: Said) -> bool:
        """It need not wait for the disk."""
        if self._gathered is None:
            return self._pending is None
        return isinstance(said, HashBatch | Seal) and len(self._gathered.said) < KEPT_AT_ONCE

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self._queue.validate()
        assert self._gathered is None, "what the map took in is not on its way to the disk"
        assert self._pending is not None or not self._queue, "it waits for nothing"
        assert self._rival is None or self._rival is self._pending
        if isinstance(self._pending, _Keeping):
            # A seal that came before the hashes goes with them.
            assert 0 < len(self._pending.said) <= KEPT_AT_ONCE + 1

    # --- the disk -------------------------------------------------------------------------------

    def followed(self, chunk_map: ChunkMap) -> bool:
        """The blob lies under `chunk_map` from now on, whoever wanted that; return whether it is a
        rival that took the place of another."""
        self.map = chunk_map
        self.disbelieved = False
        self._choice.settled()
        if self._pending is chunk_map:
            self._pending = None
        switched, self._rival = self._rival is chunk_map, None
        return switched

    def kept(self, held: int, now_s: float) -> None:
        """The records are on disk; `held` of the blob's chunks lie here."""
        keeping, self._pending = self._pending, None
        assert isinstance(keeping, _Keeping)
        if self.map is keeping.chunk_map:  # else another one took its place meanwhile
            for statement, record in keeping.said:
                self._grow(statement, record, held, now_s)
            if (due := self.map.due_seal()) is not None:  # it came before the hashes it seals
                self._apply(self.map, *due)
        self.go_on(now_s)

    def _grow(self, kept: HashBatch | Seal, record: bytes, held: int, now_s: float) -> None:
        if isinstance(kept, Seal):
            self._listener.map_sealed(record, now_s)
        else:
            self._listener.map_grew(record, _bits_of(kept), held, now_s)

    def not_taken(self, now_s: float) -> None:
        """The disk did not do what it was ordered to."""
        self._pending = self._rival = None
        self.go_on(now_s)

    def switch_if_stuck(self, idle_s: float) -> None:
        """Follow the map that another proxy signed, if ours stands still for too long."""
        if self._pending is None:
            rival = self._choice.stuck(idle_s, complete=self._listener.complete)
            if rival is not None:
                self._rival = rival
                self._follow(rival, rival=True)

    def keys_changed(self, knows: Callable[[bytes], bool]) -> None:
        """Keys are believed of which, given their ids, `knows` is true. A map by another one is
        followed to the end of what is under way, or until one is heard of that holds."""
        self._choice.keys_changed(knows)
        self.disbelieved = self.map is not None and not self.map.signed_by(knows)
        if self.disbelieved:
            self.switch_if_stuck(math.inf)

    # --- inside ---------------------------------------------------------------------------------

    def _take_in(
        self, links: list[LinkState | None], said: Said, record: bytes, now_s: float
    ) -> None:
        """`links`: all that said it before its turn came."""
        try:
            self._take(links, said, record, now_s)
        except PeerFault as fault:
            for link in links:
                if link is not None:
                    self._host.punish(link, fault, now_s)

    def _take(self, links: list[LinkState | None], said: Said, record: bytes, now_s: float) -> None:
        link = links[0]
        match said:
            case Offer():
                if link is not None:
                    self._listener.take_offer(link, said, now_s)
            case MapHead():
                self._take_head(said, record)
            case Revocation(map_id=map_id):
                self._choice.revoked(map_id)
                if self.map is not None and self.follows(map_id):
                    self.map.state = MapState.REVOKED
                    self._listener.map_revoked(record, now_s)
            case HashBatch() | Seal():
                self._heard_of(said.map_id, links)
                if self.map is not None and self.follows(said.map_id):
                    self._apply(self.map, said, record)
            case Retract():
                if link is not None:
                    self._listener.take_retract(link, now_s)

    def _take_head(self, head: MapHead, record: bytes) -> None:
        chosen = self._choice.heard(
            head,
            record,
            followed=self.map,
            complete=self._listener.complete,
            revoked=self._host.revoked(head.map_id),
        )
        if chosen is not None:
            self._follow(chosen)
        elif self.disbelieved:
            self.switch_if_stuck(math.inf)

    def _follow(self, chunk_map: ChunkMap, *, rival: bool = False) -> None:
        self._pending = chunk_map
        self._host.orders.append(FollowMap(chunk_map, rival))

    def _known_already(self, batch: HashBatch) -> bool:
        """The map that is followed has these hashes."""
        if self.map is None or not self.follows(batch.map_id):
            return False
        within = batch.first + batch.count <= self.map.geometry.chunk_count
        return within and not _bits_of(batch) & ~self.map.known.bits

    def _heard_of(self, map_id: MapId, links: list[LinkState | None]) -> None:
        if self.follows(map_id):
            for link in links:
                if link is not None:
                    self._listener.hears_the_map(link)

    def _apply(self, chunk_map: ChunkMap, statement: HashBatch | Seal, record: bytes) -> None:
        if not chunk_map.apply(statement, record):
            return
        if self._gathered is None:
            self._gathered = _Keeping(chunk_map, [])
        assert self._gathered.chunk_map is chunk_map
        self._gathered.said.append((statement, record))

    def _order_keeping(self) -> None:
        """Have the disk take what was gathered."""
        if self._gathered is not None:
            self._pending, self._gathered = self._gathered, None
            records = tuple(record for _, record in self._pending.said)
            self._host.orders.append(KeepRecords(self._digest, records))


def _bits_of(batch: HashBatch) -> int:
    return ((1 << batch.count) - 1) << batch.first
