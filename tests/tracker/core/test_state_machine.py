"""Whatever hosts and other trackers do, in any order: the tracker's books agree with each other.

A state machine of Hypothesis. It plays the shell: a link that the tracker closed says no more that
counts, and what is to be asked of another tracker is answered at some time, or is not.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from p2pdist.model import control
from p2pdist.model.control import Delta, SwarmKey
from p2pdist.model.members import Member, Role
from p2pdist.tracker.core.grants import Forward, ForwardEnd
from p2pdist.tracker.core.orders import Close, Send
from p2pdist.tracker.core.shares import KeyLimits
from p2pdist.tracker.core.state import (
    Event,
    HostConnected,
    HostDisconnected,
    HostRecord,
    MessageReceived,
    RemoteAnswered,
    RemotesChanged,
    TrackerCore,
)
from p2pdist.tracker.core.swarms import Swarms
from tests.tracker.core.test_state import core
from tests.tracker.hosts import key, member

PLACES = ("dc1/r1", "dc1/r2", "dc1/", "dc2/r1")
ROLES = (Role.PEER, Role.PROXY, Role.PROXY, Role.TRACKER)
HOSTS = [member(0, place, role) for place in PLACES for role in ROLES]
"""Under any number: a host may come back from another place, in another role."""
KEYS = [
    key("a"),
    key("b"),
    SwarmKey(control.ORIGIN + key("a")),
    SwarmKey(control.ORIGIN + key("b")),
]
DIGESTS = st.sampled_from(KEYS[:2])
DELTAS = st.builds(Delta, DIGESTS, st.integers(0, 2), st.booleans())
LINKS = st.integers(0, 5)
PROCESSES = st.sampled_from([b"", b"1", b"2"])
WORDS = st.one_of(
    st.builds(control.Announce, st.lists(DELTAS, max_size=3), st.booleans()),
    st.builds(control.Join, st.just(1), DIGESTS, st.booleans()),
    st.builds(control.Leave, DIGESTS),
    st.builds(control.Trace, DIGESTS, st.lists(st.integers(0, 4), max_size=5)),
    st.builds(control.Status, st.dictionaries(st.just("bytes"), st.floats(0, 1e6))),
    st.builds(
        control.LeaseAsk,
        st.just(1),
        st.sampled_from(KEYS),
        st.sampled_from([None, member(9, "dc2/r1", Role.PROXY)]),
    ),
)


class TrackerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1.0
        self.links = 0
        self.open: dict[int, Role] = {}
        self.forwards: list[Forward] = []
        self.granted: dict[tuple[str, str], int] = {}
        """Fences that other trackers gave and did not get back."""
        self.core: TrackerCore = core(hosts_max=3, swarms=Swarms(KeyLimits()))

    def happens(self, event: Event) -> None:
        for order in self.core.handle(event, self.now_s):
            self.carry_out(order)

    def carry_out(self, order: object) -> None:
        match order:
            case Close(link):
                self.open.pop(link, None)
            case Forward():
                self.forwards.append(order)
            case ForwardEnd(dc, swarm_key, fence):
                assert self.granted.pop((dc, swarm_key)) == fence, "given back once"
            case Send(link):
                assert link in self.open, "nothing is said where nobody hears it"

    def link_of(self, which: int, role: Role | None = None) -> int | None:
        links = [link for link, its in self.open.items() if role in (None, its)]
        return links[which % len(links)] if links else None

    # --- hosts ----------------------------------------------------------------------------------

    @initialize(proxies=st.integers(0, 2), dcs=st.sampled_from([(), ("dc2",), ("dc2", "dc3")]))
    def some_proxies_are_here(self, proxies: int, dcs: tuple[str, ...]) -> None:
        for number in range(1, proxies + 1):
            self.a_host_connects(member(0, "dc1/", Role.PROXY), number, b"")
        self.other_trackers_come_and_go(dcs)

    @rule(
        who=st.sampled_from(HOSTS),
        number=st.integers(1, 4),
        process=PROCESSES,
    )
    def a_host_connects(self, who: Member, number: int, process: bytes) -> None:
        self.links += 1
        self.open[self.links] = who.role
        place = f"{who.place.dc}/{who.place.rack}"
        self.happens(HostConnected(self.links, member(number, place, who.role), instance=process))

    @rule(which=LINKS, leaving=st.booleans())
    def a_host_disconnects(self, which: int, leaving: bool) -> None:
        if (link := self.link_of(which)) is not None:
            del self.open[link]
            self.happens(HostDisconnected(link, leaving))

    @rule(who=st.sampled_from(HOSTS), which=LINKS, leaving=st.booleans(), process=PROCESSES)
    def a_host_comes_back(self, who: Member, which: int, leaving: bool, process: bytes) -> None:
        """Perhaps as another one, or to another place."""
        if (link := self.link_of(which)) is not None:
            number = int(self.core._links[link].host_id, 16)
            del self.open[link]
            self.happens(HostDisconnected(link, leaving))
            self.a_host_connects(who, number, process)

    @rule(number=st.integers(1, 4), deltas=st.lists(DELTAS, max_size=2))
    def a_host_of_the_snapshot_is_taken_in(self, number: int, deltas: list[Delta]) -> None:
        self.core.restore(HostRecord(member(number), deltas), self.now_s)

    # --- what they say --------------------------------------------------------------------------

    @rule(which=LINKS, message=WORDS)
    def a_host_says(self, which: int, message: control.ToTracker) -> None:
        if (link := self.link_of(which)) is not None:
            self.happens(MessageReceived(link, message))

    @rule(which=LINKS, swarm_key=DIGESTS, origin=st.booleans())
    def a_proxy_asks_for_a_lease(self, which: int, swarm_key: SwarmKey, origin: bool) -> None:
        if (link := self.link_of(which, Role.PROXY)) is not None:
            asked = SwarmKey(control.ORIGIN + swarm_key) if origin else swarm_key
            self.happens(MessageReceived(link, control.LeaseAsk(1, asked)))

    @rule(which=LINKS, swarm_key=st.sampled_from(KEYS), right=st.booleans())
    def a_host_gives_a_lease_back(self, which: int, swarm_key: SwarmKey, right: bool) -> None:
        forwarded = [fence for (_, each), fence in self.granted.items() if each == swarm_key]
        fence = forwarded[0] if right and forwarded else 1_800_000_001 + int(self.now_s)
        if (link := self.link_of(which)) is not None:
            self.happens(MessageReceived(link, control.LeaseEnd(swarm_key, fence)))

    # --- other trackers -------------------------------------------------------------------------

    @precondition(lambda self: self.forwards)
    @rule(word=st.sampled_from(["granted", "granted", "held by another", ""]))
    def another_tracker_answers(self, word: str) -> None:
        """Or does not, in time."""
        forward = self.forwards.pop(0)
        asked, fence = SwarmKey(forward.ask.key), 0
        if word == "granted" and (forward.dc, asked) not in self.granted:
            fence = self.granted[forward.dc, asked] = 7 + len(self.granted)
        holder = None if fence else member(8)
        answer = control.LeaseAnswer(1, asked, fence, 10.0, holder) if word else None
        self.happens(RemoteAnswered(forward, answer))

    @rule(dcs=st.sampled_from([(), ("dc2",), ("dc2", "dc3")]), really=st.integers(0, 3))
    def other_trackers_come_and_go(self, dcs: tuple[str, ...], really: int = 0) -> None:
        if not really:
            self.happens(RemotesChanged(frozenset(dcs)))

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.0, 1.0, 4.0, 6.0, 11.0, 40.0, 1000.0]))
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while (due_s := self.core.next_deadline_s()) is not None and due_s <= end_s:
            self.now_s = max(self.now_s, due_s)
            for order in self.core.handle_deadline(self.now_s):
                self.carry_out(order)
            self.core.validate()
        self.now_s = end_s

    @invariant()
    def its_books_agree(self) -> None:
        self.core.validate()
        assert self.core.hosts_connected <= len(self.open)


TestTrackerMachine = TrackerMachine.TestCase
TestTrackerMachine.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
