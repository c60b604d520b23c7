"""How much of one blob is wanted on this host, where, and how urgently."""

from __future__ import annotations

from collections.abc import Callable

from p2pdist.model.bucket import TokenBucket
from p2pdist.swarm.core import fetch
from p2pdist.swarm.core.blob_bulk import BlobBulk
from p2pdist.swarm.core.event_log import BlobLog, Kind
from p2pdist.swarm.core.host_ports import HostPorts
from p2pdist.swarm.core.neighbours import BlobNeighbours
from p2pdist.swarm.core.reader_places import ReaderPlaces
from p2pdist.swarm.core.scope import Scope


class Wanting:
    """Its readers, the orders to have it ahead of need, and what neighbours wait for. Pure."""

    def __init__(
        self,
        host: HostPorts,
        bulk: BlobBulk,
        neighbours: BlobNeighbours,
        log: BlobLog,
        *,
        chunk_at: Callable[[int], int],
        now_s: float,
    ) -> None:
        """`chunk_at`: the chunk of a byte, in the cut that counts now."""
        self.readers = ReaderPlaces(chunk_at)
        self.halted = False
        """Nothing more is to be asked for, until somebody wants it again."""
        self._host = host
        self._bulk = bulk
        self._log = log
        self._neighbours = neighbours
        self._asking = neighbours.asking
        self._scope = Scope()
        if host.is_proxy:
            self._scope.all_wanted()
        self._used_s = now_s

    @property
    def rests_at_s(self) -> float | None:
        """When it is left alone: nobody needs a part of it any more."""
        return self._scope.rests_at_s

    def used(self, now_s: float) -> None:
        """Somebody opened it, or asked for it."""
        self._used_s = now_s

    def unused_s(self, now_s: float) -> float:
        """Seconds since then."""
        return now_s - self._used_s

    # --- readers --------------------------------------------------------------------------------

    def open_reader(self, now_s: float, *, demand: bool = False) -> int:
        """`demand`: it needs a part of the blob and nothing else, and tells which by `reader_at`;
        as long as all readers are such ones, nothing else is fetched."""
        reader = self.readers.open()
        self._log.note(Kind.OPENED, now_s, text="demand" if demand else "")
        self.reader_at(reader, 0, now_s, until=0 if demand else None)
        return reader

    def reader_at(
        self, reader: int, offset: int, now_s: float, *, until: int | None = None
    ) -> None:
        """`reader` waits for the byte at `offset`; `until`: where the part ends that it demands."""
        self.used(now_s)
        self.readers.moved(reader, offset, until)
        if until is None:
            self._scope.all_wanted()
        else:
            self._scope.part_wanted()
        self.weigh(now_s)
        self._asking.feed(self.readers.place(reader), now_s)

    def goes_out(self, reader: int, start: int, stop: int, now_s: float) -> None:
        """The bytes `start` to `stop` are on their way to `reader`, which then waits for the one
        at `stop`; until that is said it may not have got them."""
        assert start < stop
        self.used(now_s)

    def close_reader(self, reader: int, now_s: float) -> bool:
        """Return whether it was open."""
        if not self.readers.close(reader):
            return False
        self._log.note(Kind.LEFT, now_s)
        self._asking.feed(fetch.ReaderLeft(reader), now_s)
        if not self.readers:
            self._scope.unread(now_s)
        self.weigh(now_s)
        return True

    # --- bulk -----------------------------------------------------------------------------------

    def order_bulk(self, budget: TokenBucket | None, now_s: float) -> None:
        """Fetch it as bulk whenever nobody waits for it; the last order's budget counts."""
        self._bulk.order(budget)
        self._scope.all_wanted()
        self.weigh(now_s)

    def end_bulk(self, now_s: float, *, complete: bool) -> None:
        """Nobody orders it any more: unless a reader has it open, nothing more is asked for.

        A proxy finishes what it began, because its neighbours may want it by now.
        """
        self._bulk.ordered = False
        if not (self.readers.ordinary or complete or self._host.is_proxy):
            self._scope.order_ended()
            if not self.readers:
                self.rest(now_s)
        self.weigh(now_s)

    # --- together -------------------------------------------------------------------------------

    def rest(self, now_s: float) -> None:
        """Ask for nothing more. What came stays, is served to whoever asks, and is where the next
        reader goes on from."""
        self.halted = True
        self._log.end(Kind.LET_GO, now_s)
        self._asking.feed(fetch.Halted(), now_s)
        self._neighbours.release(now_s)
        self._neighbours.leave()

    def rest_if_due(self, now_s: float, *, complete: bool) -> None:
        """Its last reader needed a part of it, and left long enough ago."""
        if self._scope.rest_due(now_s) and not complete:
            self.rest(now_s)

    def weigh(self, now_s: float) -> None:
        """Be bulk or not, and wanted whole or in part, as readers and neighbours come and go."""
        said = bool(self._bulk), self._asking.demand
        urgent_elsewhere = self._host.is_proxy and self._neighbours.audience.urgent
        if self._bulk.weigh(waited_for=bool(self.readers) or urgent_elsewhere):
            self._asking.feed(fetch.PaceSet(self._bulk.pace), now_s)
        if self._asking.demand is self._scope.whole:
            self._asking.demand = not self._scope.whole
            self._asking.feed(fetch.WholeWanted(self._scope.whole), now_s)
        if (bool(self._bulk), self._asking.demand) != said:
            self._asking.say_interest_to_all()

    def tell_all(self, now_s: float) -> None:
        """To a fetch that has just begun."""
        self._asking.feed(fetch.PaceSet(self._bulk.pace), now_s)
        self._asking.feed(fetch.WholeWanted(self._scope.whole), now_s)
        for place in self.readers.places():
            self._asking.feed(place, now_s)

    def validate(self) -> None:
        """Assert what must hold after every event; for tests and simulations."""
        self.readers.validate()
        self._scope.validate(read=bool(self.readers))
        assert self._scope.whole or not (self.readers.ordinary or self._host.is_proxy)
        assert self._asking.demand is not self._scope.whole, "neighbours were told otherwise"
        urgent_elsewhere = self._host.is_proxy and self._neighbours.audience.urgent
        waited_for = bool(self.readers) or urgent_elsewhere
        assert bool(self._bulk) is (self._bulk.ordered and not waited_for)
        assert not (self.halted and self._asking.in_flight), "it asks for what nobody wants"
