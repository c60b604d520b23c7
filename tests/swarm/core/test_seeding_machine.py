"""Any order of events leaves a seed's accounts in step with each other."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from p2pdist.model.ids import HostId
from p2pdist.swarm.core.seeding import SeedPlan
from p2pdist.swarm.core.uplink import Uplink

CHUNKS = 10
CHUNK = 1 << 20
HOSTS = [HostId(letter * 32) for letter in "abcd"]

hosts = st.sampled_from(HOSTS)
chunks = st.integers(0, (1 << CHUNKS) - 1)


class SeedMachine(RuleBasedStateMachine):
    """What a reader asks for is sent, or is not, as by the shell."""

    spares: bool

    def __init__(self) -> None:
        super().__init__()
        self.plan = SeedPlan(CHUNK, Uplink(), spares=self.spares)
        self.now_s = 0.0
        self.held = 0
        self.asked: dict[HostId, int] = dict.fromkeys(HOSTS, 0)

    def refill(self) -> None:
        for host, bits in self.plan.refill(self.now_s):
            assert bits
            assert not bits & ~self.held, "only what is here is promised"
            assert self.plan.knows(host)

    @rule(bits=chunks, whole=st.booleans())
    def comes_here(self, bits: int, *, whole: bool) -> None:
        bits = (1 << CHUNKS) - 1 if whole else bits
        self.held |= bits
        self.plan.hold(bits, whole=whole)
        self.refill()

    @rule(host=hosts, told=st.booleans())
    def joins(self, host: HostId, *, told: bool) -> None:
        self.plan.joined(host, self.now_s, offered=self.held if told else 0)
        self.refill()

    @rule(host=hosts)
    def leaves(self, host: HostId) -> None:
        self.asked[host] = 0
        self.plan.left(host)
        self.refill()

    @rule(host=hosts)
    def goes(self, host: HostId) -> None:
        self.asked[host] = 0
        self.plan.gone(host)
        self.refill()

    @rule(host=hosts)
    def retracts(self, host: HostId) -> None:
        self.plan.retracted(host)
        self.refill()

    @rule(host=hosts, bits=chunks)
    def says_that_it_has(self, host: HostId, bits: int) -> None:
        self.plan.holds(host, bits, self.now_s)
        self.refill()

    @rule(host=hosts, hungry=st.booleans())
    def hungers(self, host: HostId, *, hungry: bool) -> None:
        self.plan.set_hungry(host, hungry)
        self.refill()

    @rule(host=hosts, bits=chunks)
    def asks(self, host: HostId, bits: int) -> None:
        bits &= self.held & ~self.asked[host]
        if self.plan.knows(host):
            self.asked[host] |= bits
        self.plan.asked(host, bits, self.now_s)
        self.refill()

    @rule(host=hosts, part=chunks, goes_out=st.booleans())
    def is_answered(self, host: HostId, part: int, *, goes_out: bool) -> None:
        bits = self.asked[host] & part
        self.asked[host] &= ~bits
        if goes_out:
            self.plan.sent(host, bits, self.now_s)
        else:
            self.plan.unsent(host, bits)
        self.refill()

    @rule(passed_s=st.sampled_from([0.01, 0.2, 1.0, 10.0]))
    def time_passes(self, passed_s: float) -> None:
        self.now_s += passed_s
        due_s = self.plan.next_deadline_s()
        if due_s is not None and due_s <= self.now_s:
            self.plan.expire(self.now_s)
            self.refill()

    @invariant()
    def holds(self) -> None:
        self.plan.validate()


class ProxyMachine(SeedMachine):
    spares = True


class PeerMachine(SeedMachine):
    spares = False


_OFTEN = settings(max_examples=100, stateful_step_count=50, deadline=None)
ProxyMachine.TestCase.settings = _OFTEN
PeerMachine.TestCase.settings = _OFTEN
TestProxyMachine = ProxyMachine.TestCase
TestPeerMachine = PeerMachine.TestCase
