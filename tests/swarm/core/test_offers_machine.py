"""Any order of events leaves what a node offers in step with whom it knows."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.offers import OfferPlan
from p2pdist.swarm.core.uplink import Uplink

CHUNKS = 10
ALL = (1 << CHUNKS) - 1
CHUNK = 1 << 20
HOSTS = [HostId(letter * 32) for letter in "abcd"]

hosts = st.sampled_from(HOSTS)
chunks = st.integers(0, ALL)


class OffersMachine(RuleBasedStateMachine):
    seed: bool

    def __init__(self) -> None:
        super().__init__()
        self.plan = OfferPlan(CHUNK, Uplink(), seed=self.seed)
        self.now_s = 0.0
        self.held = 0
        self.told: dict[HostId, int] = dict.fromkeys(HOSTS, 0)
        """Since the host last joined, or the map was dropped."""
        self.readers: set[HostId] = set()
        self.sources: set[HostId] = set()
        self.asked: dict[HostId, int] = dict.fromkeys(HOSTS, 0)

    @rule(host=hosts, shares=st.booleans(), demand=st.booleans())
    def reads(self, host: HostId, *, shares: bool, demand: bool) -> None:
        self.told[host] = 0
        self.readers.add(host)
        self.plan.reader_joined(host, shares=shares, now_s=self.now_s, demand=demand)

    @rule(host=hosts, demand=st.booleans())
    def demands(self, host: HostId, *, demand: bool) -> None:
        self.plan.reader_demands(host, demand, self.now_s)

    @rule(host=hosts, hungry=st.booleans())
    def hungers(self, host: HostId, *, hungry: bool) -> None:
        self.plan.reader_hungry(host, hungry, self.now_s)

    @rule(host=hosts)
    def is_read_from(self, host: HostId) -> None:
        self.sources.add(host)
        self.plan.source_joined(host)

    @rule(host=hosts)
    def reads_no_more(self, host: HostId) -> None:
        self.asked[host] = 0
        self.readers.discard(host)
        self.plan.reader_left(host, self.now_s)
        self.forget_strangers()

    @rule()
    def nobody_is_read_from(self) -> None:
        self.sources.clear()
        self.plan.sources_left()
        self.forget_strangers()

    def forget_strangers(self) -> None:
        for host in set(HOSTS) - self.readers - self.sources:
            self.told[host] = 0

    @rule(host=hosts)
    def goes(self, host: HostId) -> None:
        self.asked[host] = 0
        self.readers.discard(host)
        self.sources.discard(host)
        self.plan.host_gone(host, self.now_s)
        self.forget_strangers()

    @rule(host=hosts, bits=chunks, shares=st.booleans())
    def holds_some(self, host: HostId, bits: int, *, shares: bool) -> None:
        self.plan.host_holds(host, bits, shares=shares, now_s=self.now_s)

    @rule(host=hosts)
    def retracts(self, host: HostId) -> None:
        self.plan.host_retracted(host, self.now_s)

    @rule(bits=chunks, whole=st.booleans())
    def lands(self, bits: int, *, whole: bool) -> None:
        bits = ALL if whole else bits
        self.held |= bits
        self.plan.landed(bits, self.now_s, whole=self.held == ALL)

    @rule(bits=chunks)
    def rots(self, bits: int) -> None:
        self.held &= ~bits
        self.told = {host: told & ~bits for host, told in self.told.items()}
        self.plan.lost(bits, self.now_s)

    @rule(host=hosts, bits=chunks)
    def asks(self, host: HostId, bits: int) -> None:
        bits &= self.held & ~self.asked[host]
        if bits and not self.plan.refers(host, bits, self.now_s):
            self.asked[host] |= bits
            self.plan.asked(host, bits, self.now_s)

    @rule(host=hosts, part=chunks)
    def is_answered(self, host: HostId, part: int) -> None:
        asked, self.asked[host] = self.asked[host], 0
        self.plan.sent(host, asked & part, asked & ~part, self.now_s)

    @rule()
    def the_map_is_dropped(self) -> None:
        self.held = 0
        self.told = dict.fromkeys(HOSTS, 0)
        self.asked = dict.fromkeys(HOSTS, 0)
        self.plan.dropped(self.now_s)

    @rule(passed_s=st.sampled_from([0.0, 0.01, 0.2, 10.0]), flush=st.booleans())
    def orders_are_carried_out(self, passed_s: float, *, flush: bool) -> None:
        self.now_s += passed_s
        for order in self.plan.take_orders(self.now_s, flush=flush):
            assert order.bits
            assert not order.bits & ~self.held, "only what is here is offered"
            assert not order.bits & self.told[order.host], "and once"
            assert self.plan.knows(order.host)
            self.told[order.host] |= order.bits

    @invariant()
    def holds(self) -> None:
        self.plan.validate()


class ProxyMachine(OffersMachine):
    seed = True


class PeerMachine(OffersMachine):
    seed = False


_OFTEN = settings(max_examples=100, stateful_step_count=50, deadline=None)
ProxyMachine.TestCase.settings = _OFTEN
PeerMachine.TestCase.settings = _OFTEN
TestProxyMachine = ProxyMachine.TestCase
TestPeerMachine = PeerMachine.TestCase
