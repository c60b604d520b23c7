"""Whatever sources do: each is asked once, in their order, and the search ends.

A state machine of Hypothesis, which plays the shell: each order gets its one answer, of any kind.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from p2pdist.registry_proxy.core import sources as core
from p2pdist.registry_proxy.core.following import BlobView
from p2pdist.registry_proxy.core.leasing import SOURCE_SILENCE_S

pytestmark = pytest.mark.timeout(360)

ORDER = (
    core.FollowSwarm,
    core.Introduce,
    core.FollowParents,
    core.AskOrigin,
    core.ReadRegistry,
    core.Stop,
)
TIMES = st.sampled_from([0.0, 0.1, core.SWARM_SILENCE_S, SOURCE_SILENCE_S, 7.0])


class SourcesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.came_s = 0.0
        self.complete = self.failed = False
        self.order: core.Order = core.Stop()
        self.parents = self.granted = False
        self.holders = 0
        self.asked: list[int] = []
        """The places in `ORDER` of the sources so far."""
        self.core = core.SourcesCore(parents=False)

    @initialize(parents=st.booleans(), granted=st.booleans(), holders=st.integers(0, 2))
    def is_leased(self, parents: bool, granted: bool, holders: int) -> None:
        self.parents, self.granted, self.holders = parents, granted, holders
        self.core = core.SourcesCore(parents=parents)
        self.happens(core.Leased(granted, holders, self.view))

    @property
    def view(self) -> BlobView:
        return BlobView(self.complete, self.failed, idle_s=self.now_s - self.came_s)

    def happens(self, event: core.Event) -> None:
        over = self.complete or self.failed
        self.order = self.core.handle(event, self.now_s)
        self.core.validate()
        if isinstance(self.order, core.Wait):
            assert not over
            return
        place = ORDER.index(type(self.order))
        assert not self.asked or place > self.asked[-1], "sources are asked once, in their order"
        self.asked.append(place)
        assert isinstance(self.order, core.Stop) or not over, "what is whole is looked for no more"
        if isinstance(self.order, core.AskOrigin) and self.parents:
            assert ORDER.index(core.Introduce) in self.asked, (
                "the parents are asked before the registry"
            )
        if isinstance(self.order, core.FollowSwarm):
            assert self.holders

    @precondition(lambda self: isinstance(self.order, core.FollowSwarm | core.FollowParents))
    @rule()
    def is_followed(self) -> None:
        self.happens(core.Looked(self.view))

    @precondition(lambda self: isinstance(self.order, core.Wait))
    @rule()
    def is_woken(self) -> None:
        self.happens(core.Looked(self.view))

    @precondition(lambda self: isinstance(self.order, core.Introduce))
    @rule(found=st.booleans())
    def parents_answer(self, found: bool) -> None:
        self.happens(core.Introduced(found, self.view))

    @precondition(lambda self: isinstance(self.order, core.AskOrigin))
    @rule(granted=st.booleans())
    def origin_is_told(self, granted: bool) -> None:
        self.happens(core.OriginTold(granted, self.view))
        if isinstance(self.order, core.ReadRegistry):
            assert self.order.alone == (granted and self.granted)

    @precondition(lambda self: isinstance(self.order, core.ReadRegistry))
    @rule()
    def registry_is_read(self) -> None:
        self.happens(core.RegistryRead())
        assert isinstance(self.order, core.Stop)

    @rule()
    def chunk_comes(self) -> None:
        self.came_s = self.now_s

    @rule(really=st.integers(0, 9), fails=st.booleans())
    def is_over(self, really: int, fails: bool) -> None:
        if really == 0:
            self.failed, self.complete = fails, not fails

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while isinstance(self.order, core.Wait):
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            assert next_s <= self.now_s + SOURCE_SILENCE_S
            if next_s > end_s:
                break
            self.now_s = max(self.now_s, next_s)
            self.happens(core.Looked(self.view))
            next_s = self.core.next_deadline_s()
            assert next_s is None or next_s > self.now_s, "what is due was done"
        self.now_s = max(self.now_s, end_s)

    def teardown(self) -> None:
        """Where nobody brings anything, the registry is read in the end."""
        silent_s = core.SWARM_SILENCE_S + SOURCE_SILENCE_S
        end_s = self.now_s + 2 * silent_s
        while self.core.phase is not core.Phase.OVER:
            assert self.now_s <= end_s, "it waits for ever"
            match self.order:
                case core.FollowSwarm() | core.FollowParents():
                    self.is_followed()
                case core.Introduce():
                    self.parents_answer(True)
                case core.AskOrigin():
                    self.origin_is_told(True)
                case core.ReadRegistry():
                    self.registry_is_read()
                case core.Wait():
                    self.time_passes(0.5)
        assert self.complete or self.failed or ORDER.index(core.ReadRegistry) in self.asked


TestSourcesMachine = SourcesMachine.TestCase
TestSourcesMachine.settings = settings(max_examples=120, stateful_step_count=30, deadline=None)
