"""One host's core without network or disk, and neighbours that do just what peers would.

Everything happens at `CHUNKS_PER_S`, whatever the number of neighbours and chunks: what they bring
or take together. Half of the blob is there, on each host another half, as in the middle of a pull;
hashes of the rest are heard of on the way. Chunks come one by one, each in a turn of its own.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from functools import partial
from random import Random
from typing import Final

from bench.cores.meter import Agenda, Meter
from bench.sim.content import Content, SimBlob
from p2pdist.exchange.frames import Interest, Offer
from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.chunkset import ChunkSet
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Member, Place, Role
from p2pdist.swarm.core import host_orders as orders
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.offers import BATCH_MAX_S

CHUNKS_PER_S: Final = 480.0
"""1 Gbit/s in chunks of 256 KiB."""
LATENCY_S: Final = 0.0005
OFFER_S: Final = BATCH_MAX_S
"""Between two offers of one neighbour, in the middle of a pull that takes some seconds."""
RUN_CHUNKS: Final = 4
PASSED_ON_S: Final = 0.5
"""Within so long a chunk that one reader got is at all others, too."""
HASHES: Final = 64
PLACE: Final = Place("dc1", "")


class Lab(ABC):
    """A core, its clock and its links; those who use it add what neighbours do."""

    def __init__(
        self, blob: SimBlob, content: Content, meter: Meter, *, is_proxy: bool, seed: int
    ) -> None:
        self.meter, self.agenda, self.rng = meter, Agenda(), Random(seed)
        self.sim, self.count = blob, blob.geometry.chunk_count
        self.core = HostCore(
            PLACE,
            is_proxy=is_proxy,
            rng=Random(seed),
            proxy_of_ours=lambda _: False,
            revoked=lambda _: False,
            servable=lambda _: True,
        )
        self.content = content
        self.blob: BlobCore = self.core.take_up(blob.digest, blob.geometry.size_bytes, 0.0)
        self._acts = False
        self._look_s: float | None = None

    def happens(self, *calls: partial[None]) -> None:
        """The core hears of something, in one turn of its host, and decides."""
        for call in calls:
            self.meter.counts(call)
        self._carry_out()
        if self.core.woken:
            self.meter.counts(self._act)
            self._carry_out()
        self._be_in_time()

    def _act(self) -> None:
        self.core.act(self.agenda.now_s)

    def _be_in_time(self) -> None:
        due_s = self.core.next_deadline_s()
        if due_s is not None and (self._look_s is None or due_s < self._look_s):
            self._look_s = due_s
            self.agenda.at(max(due_s, self.agenda.now_s), partial(self._deadline, due_s))

    def _deadline(self, due_s: float) -> None:
        if due_s == self._look_s:
            self._look_s = None
            self.happens(partial(self.core.handle_deadline, self.agenda.now_s))

    def _carry_out(self) -> None:
        while self.core.orders:
            self.order(self.core.orders.popleft())

    @abstractmethod
    def order(self, order: orders.Order) -> None:
        """Carry one out."""

    def random_half(self) -> int:
        """Runs of chunks, half of the blob together."""
        bits = 0
        for first in range(0, self.count, RUN_CHUNKS):
            bits |= (((1 << RUN_CHUNKS) - 1) * self.rng.getrandbits(1)) << first
        return bits & ((1 << self.count) - 1)

    def offer(self, bits: int) -> Offer:
        """That a neighbour has these chunks."""
        ranges = tuple(ChunkSet(self.count, bits).ranges())
        return Offer(self.sim.digest, self.sim.head.map_id, ranges)


class Neighbour:
    """One link, and what was asked for on it."""

    def __init__(self, lab: Lab, number: int, role: Role) -> None:
        self.lab, self.received_bytes = lab, 0
        member = Member(HostId(f"{number:032x}"), role, PLACE)
        self.link = LinkState(member, lambda: self.received_bytes, speaks_demand=True)
        self.queue: deque[tuple[RequestId, int]] = deque()
        self.busy = False
        self.has = 0
        self.left: list[int] = []
        """Firsts of runs that it has not, in the order in which it gets them."""


class Pull(Lab):
    """A host that pulls from a proxy and peers. `done`: chunks that came."""

    def __init__(
        self, blob: SimBlob, content: Content, meter: Meter, *, neighbours: int, seed: int
    ) -> None:
        super().__init__(blob, content, meter, is_proxy=False, seed=seed)
        self.done = 0
        self._line: deque[Neighbour] = deque()
        self._bringing = False
        self._reader_chunk = 0
        self._each_s = neighbours / CHUNKS_PER_S
        self._neighbours = [
            Neighbour(self, i, Role.PEER if i else Role.PROXY) for i in range(neighbours)
        ]
        self._of = {n.link: n for n in self._neighbours}
        self._later = list(blob.batches[-min(32, len(blob.batches) // 2) :])
        self._begin()

    def _begin(self) -> None:
        chunk_map = ChunkMap(self.sim.head, self.content.record(self.sim.head))
        for batch in self.sim.batches[: len(self.sim.batches) - len(self._later)]:
            chunk_map.apply(batch, self.content.record(batch))
        self.blob.join(0.0)
        self.held = self.random_half() & chunk_map.known.bits
        self.happens(partial(self.blob.map_followed, chunk_map, self.held, 0.0))
        self.reader = self.blob.wanting.open_reader(0.0)
        for neighbour in self._neighbours:
            interest = Interest(self.sim.digest)
            self.happens(partial(self.blob.hear_interest, neighbour.link, interest, 0.0))
            self.agenda.at(self.rng.random() * OFFER_S, partial(self._first_offer, neighbour))

    # --- what neighbours have -------------------------------------------------------------------

    def _first_offer(self, neighbour: Neighbour) -> None:
        if neighbour.link.to_proxy:
            self._promise(neighbour)
            return
        neighbour.has = self.random_half()
        firsts = range(0, self.count, RUN_CHUNKS)
        neighbour.left = [f for f in firsts if not neighbour.has >> f & 1]
        self.rng.shuffle(neighbour.left)
        self._say(neighbour, neighbour.has)
        self.agenda.at(self.agenda.now_s + OFFER_S, partial(self._offers, neighbour))

    def _offers(self, neighbour: Neighbour) -> None:
        bits = 0
        for _ in range(round(CHUNKS_PER_S * OFFER_S / RUN_CHUNKS)):
            if neighbour.left:
                bits |= ((1 << RUN_CHUNKS) - 1) << neighbour.left.pop()
        if bits := bits & ((1 << self.count) - 1):
            neighbour.has |= bits
            self._say(neighbour, bits)
        self.agenda.at(self.agenda.now_s + OFFER_S, partial(self._offers, neighbour))

    def _promise(self, proxy: Neighbour) -> None:
        """The lowest run that lacks here and was not promised yet, as often as one is due."""
        lacks = ChunkSet(self.count, self.held | proxy.has)
        first = lacks.first_missing()
        if first < self.count:
            bits = ((1 << RUN_CHUNKS) - 1) << first & ((1 << self.count) - 1) & ~self.held
            proxy.has |= bits
            self._say(proxy, bits)
        self.agenda.at(self.agenda.now_s + RUN_CHUNKS * self._each_s, partial(self._promise, proxy))

    def _say(self, neighbour: Neighbour, bits: int) -> None:
        offer = self.offer(bits)
        self.happens(partial(self.blob.hear, neighbour.link, offer, self.agenda.now_s))

    # --- what they bring ------------------------------------------------------------------------

    def order(self, order: orders.Order) -> None:
        match order:
            case orders.AskRun(link, request):
                asked = range(request.first, request.first + request.count)
                self._of[link].queue.extend((request.request_id, i) for i in asked)
                self._go_on(self._of[link])
            case orders.TakeBack(link, request_id):
                left = [each for each in self._of[link].queue if each[0] != request_id]
                self._of[link].queue = deque(left)
            case orders.KeepRecords():
                self.agenda.at(self.agenda.now_s + LATENCY_S, self._kept)
            case orders.Deliver(_, bits) if bits is not None and bits >> self._reader_chunk & 1:
                self.agenda.at(self.agenda.now_s, self._read_on)
            case _:
                pass

    def _go_on(self, neighbour: Neighbour) -> None:
        """Our own link is what limits: they send in turn, a chunk each."""
        if not neighbour.busy:
            neighbour.busy = True
            self._line.append(neighbour)
        if self._line and not self._bringing:
            self._bringing = True
            due_s = self.agenda.now_s + self.rng.uniform(0.9, 1.1) / CHUNKS_PER_S
            self.agenda.at(due_s, self._brings)

    def _brings(self) -> None:
        self._bringing = False
        neighbour = self._line.popleft()
        neighbour.busy = False
        if neighbour.queue:
            request_id, chunk = neighbour.queue.popleft()
            neighbour.received_bytes += self.sim.geometry.length(chunk)
            self.done += 1
            self.held |= 1 << chunk
            self.happens(partial(self._arrived, neighbour.link, request_id, chunk))
            if self.done % HASHES == 0 and self._later:
                self._hashes()
        for waiting in (neighbour, *list(self._line)[:1]):
            if waiting.queue:
                self._go_on(waiting)

    def _arrived(self, link: LinkState, request_id: RequestId, chunk: int) -> None:
        if self.core.requests.chunk_came(link, request_id) is not None:
            self.blob.arrived(link, request_id, chunk, self.agenda.now_s, good=True)

    def _hashes(self) -> None:
        batch, link = self._later.pop(0), self._neighbours[0].link
        record, now_s = self.content.record(batch), self.agenda.now_s
        self.happens(partial(self.core.hear_statement, link, batch, record, now_s))

    def _kept(self) -> None:
        self.happens(partial(self.blob.records_kept, 0, self.agenda.now_s))

    def _read_on(self) -> None:
        self.happens(partial(self._moved))

    def _moved(self) -> None:
        at = self.sim.geometry.offset(self._reader_chunk)
        end = self.blob.deliverable_end(at)
        self._reader_chunk = min(self.sim.geometry.chunk_at(end), self.count - 1)
        self.blob.wanting.reader_at(self.reader, end, self.agenda.now_s)


class Serve(Lab):
    """A host that has it all and serves peers. `done`: chunks that went out."""

    def __init__(
        self,
        blob: SimBlob,
        content: Content,
        meter: Meter,
        *,
        neighbours: int,
        seed: int,
        is_proxy: bool,
    ) -> None:
        super().__init__(blob, content, meter, is_proxy=is_proxy, seed=seed)
        self.done = 0
        self._ids = iter(range(1, 1 << 32))
        self._readers = [Neighbour(self, i, Role.PEER) for i in range(neighbours)]
        self._of = {n.link: n for n in self._readers}
        self._news = dict.fromkeys(self._of, 0)
        self._line: deque[tuple[Neighbour, int]] = deque()
        self._sending = False
        whole, half = (1 << self.count) - 1, self.random_half()
        self.happens(partial(self.blob.map_followed, content.whole_map(blob), whole, 0.0))
        for reader in self._readers:
            reader.has = half
            self.happens(partial(self.blob.hear, reader.link, self.offer(half), 0.0))
            interest = Interest(blob.digest)
            self.happens(partial(self.blob.hear_interest, reader.link, interest, 0.0))
            self.happens(partial(self.blob.hear, reader.link, self.offer(half), 0.0))
            self.agenda.at(self.rng.random() * OFFER_S, partial(self._offers, reader))

    def order(self, order: orders.Order) -> None:
        match order:
            case orders.Send(link, Offer(ranges=ranges)):
                for first, count in ranges:
                    asks = partial(self._asks, self._of[link], first, count)
                    self.agenda.at(self.agenda.now_s + 2 * LATENCY_S, asks)
            case _:
                pass

    def _asks(self, reader: Neighbour, first: int, count: int) -> None:
        while count:  # what it has by now it does not ask for
            if reader.has >> first & 1:
                first, count = first + 1, count - 1
                continue
            length = 1
            while length < min(count, RUN_CHUNKS) and not reader.has >> (first + length) & 1:
                length += 1
            bits = ((1 << length) - 1) << first
            reader.has |= bits
            self.happens(partial(self._serves, reader.link, bits))
            self._line.append((reader, bits))
            first, count = first + length, count - length
        self._send()

    def _serves(self, link: LinkState, bits: int) -> None:
        if not self.blob.refers(link, bits, self.agenda.now_s):
            self.blob.neighbours.asked(link, bits, self.agenda.now_s)

    def _send(self) -> None:
        if self._line and not self._sending:
            self._sending = True
            chunks = self._line[0][1].bit_count()
            self.agenda.at(self.agenda.now_s + chunks / CHUNKS_PER_S, self._sent)

    def _sent(self) -> None:
        self._sending = False
        reader, bits = self._line.popleft()
        self._send()
        self.done += bits.bit_count()
        self._news[reader.link] |= bits
        for other in self._readers:
            if other is not reader and bits & ~other.has:
                due_s = self.agenda.now_s + PASSED_ON_S * self.rng.random()
                self.agenda.at(due_s, partial(self._passed_on, other, bits))
        self.happens(partial(self.blob.neighbours.sent, reader.link, bits, 0, self.agenda.now_s))

    def _passed_on(self, reader: Neighbour, bits: int) -> None:
        self._news[reader.link] |= bits
        reader.has |= bits

    def _offers(self, reader: Neighbour) -> None:
        bits, self._news[reader.link] = self._news[reader.link], 0
        if bits:
            offer = self.offer(bits)
            self.happens(partial(self.blob.hear, reader.link, offer, self.agenda.now_s))
        self.agenda.at(self.agenda.now_s + OFFER_S, partial(self._offers, reader))
