"""Any order of events leaves the fetch of a blob in step with itself, and no chunk is asked of more
than two neighbours at a time."""

from __future__ import annotations

import itertools
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from p2pdist.model.geometry import Geometry
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Distance
from p2pdist.swarm.core import fetch as core
from p2pdist.swarm.core.flow import Flows

CHUNKS = 12
CHUNK = 256 * 1024
HOSTS = [HostId(letter * 32) for letter in "abcf"]
PROXY = HOSTS[-1]

hosts = st.sampled_from(HOSTS)
chunks = st.integers(0, (1 << CHUNKS) - 1)


class FetchMachine(RuleBasedStateMachine):
    """Orders are carried out as the shell does: what was asked for and not withdrawn may come."""

    def __init__(self) -> None:
        super().__init__()
        ids = itertools.count(1)
        self.fetch = core.BlobFetch(
            Geometry(CHUNKS * CHUNK, CHUNK),
            rng=Random(1),
            new_request_id=lambda: RequestId(next(ids)),
            counters=core.FetchCounters(),
        )
        self.flows = {host: Flows() for host in HOSTS}
        self.now_s = 0.0
        self.open: dict[tuple[HostId, RequestId], set[int]] = {}

    @initialize(
        offered=st.lists(chunks, min_size=len(HOSTS), max_size=len(HOSTS)), many=st.booleans()
    )
    def all_are_there(self, offered: list[int], *, many: bool) -> None:
        """Else most runs would be about a fetch that can ask nobody for anything."""
        for host, bits in zip(HOSTS, offered, strict=True):
            self.comes(host)
            self.offers(host, bits | 0xFFF if many else bits)
        self.hashes_come((1 << CHUNKS) - 1)
        self.reads(0, 0, 0)

    def carry_out(self, orders: list[core.Order]) -> None:
        for order in orders:
            if isinstance(order, core.Ask):
                asked = set(range(order.first, order.first + order.count))
                assert asked
                assert max(asked) < CHUNKS
                self.open[order.host, order.request_id] = asked
            elif isinstance(order, core.Withdraw):
                del self.open[order.host, order.request_id]

    def happens(self, event: core.Event) -> None:
        self.carry_out(self.fetch.handle(event, self.now_s))

    def gone(self, host: HostId) -> None:
        self.open = {key: left for key, left in self.open.items() if key[0] != host}

    @rule(host=hosts)
    def comes(self, host: HostId) -> None:
        self.happens(core.NeighbourUp(host, Distance.DC, host == PROXY, self.flows[host]))

    @rule(host=hosts)
    def goes(self, host: HostId) -> None:
        self.gone(host)
        self.happens(core.NeighbourDown(host))

    @rule(host=hosts)
    def parts(self, host: HostId) -> None:
        self.happens(core.Parted(host))

    @rule(host=hosts, bits=chunks)
    def offers(self, host: HostId, bits: int) -> None:
        self.happens(core.Offered(host, bits))

    @rule(host=hosts)
    def retracts(self, host: HostId) -> None:
        self.happens(core.Retracted(host))

    @rule(bits=chunks)
    def hashes_come(self, bits: int) -> None:
        self.happens(core.HashesKnown(bits))

    @rule(bits=chunks)
    def lands(self, bits: int) -> None:
        self.happens(core.Landed(bits))

    @rule(bits=chunks)
    def is_lost(self, bits: int) -> None:
        self.happens(core.Lost(bits))

    @rule(reader=st.integers(0, 2), at=st.integers(0, CHUNKS - 1), length=st.integers(0, 4))
    def reads(self, reader: int, at: int, length: int) -> None:
        until = min(at + length, CHUNKS) if length else None
        self.happens(core.ReaderMoved(reader, at, until))

    @rule(reader=st.integers(0, 2))
    def stops_reading(self, reader: int) -> None:
        self.happens(core.ReaderLeft(reader))

    @rule(whole=st.booleans())
    def wants(self, *, whole: bool) -> None:
        self.happens(core.WholeWanted(whole))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), good=st.booleans())
    def chunk_comes(self, data: st.DataObject, *, good: bool) -> None:
        host, request_id = data.draw(st.sampled_from(sorted(self.open)))
        left = self.open[host, request_id]
        chunk = data.draw(st.sampled_from(sorted(left)))
        self.flows[host].heard(CHUNK, self.now_s)
        left.remove(chunk)
        if not left:
            del self.open[host, request_id]
        self.happens(core.Arrived(host, request_id, chunk, good))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), gone=st.booleans())
    def is_refused(self, data: st.DataObject, *, gone: bool) -> None:
        host, request_id = data.draw(st.sampled_from(sorted(self.open)))
        del self.open[host, request_id]
        self.happens(core.Refused(host, request_id, gone))

    @rule(host=hosts, chunk=st.integers(0, CHUNKS - 1))
    def an_answer_comes_that_nobody_waits_for(self, host: HostId, chunk: int) -> None:
        self.happens(core.Arrived(host, RequestId(1 << 40), chunk, good=False))

    @rule()
    def halts(self) -> None:
        self.happens(core.Halted())

    @rule(passed_s=st.sampled_from([0.01, 0.1, 0.3, 0.6, 1.0, 5.0, 30.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s
        due_s = self.fetch.next_deadline_s()
        if due_s is not None and due_s <= self.now_s:
            self.carry_out(self.fetch.handle_deadline(self.now_s))

    @invariant()
    def holds(self) -> None:
        self.fetch.validate()
        asked: set[int] = set().union(*self.open.values())
        assert self.fetch.in_flight == len(asked), "what is asked for is what may come"


FetchMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestFetchMachine = FetchMachine.TestCase
