"""Whatever trackers, holders and time do: at most one grant, given back once, and a pull goes on.

A state machine of Hypothesis, which plays the shell: each order gets its one answer, of any kind.
"""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pdist.model.control import LeaseAnswer, digest_key
from p2pdist.model.ids import digest_of
from p2pdist.registry_proxy.core import leasing as core
from p2pdist.registry_proxy.core.following import BlobView
from tests.tracker.hosts import member

pytestmark = pytest.mark.timeout(360)

KEY = digest_key(digest_of(b"layer"))
TIMES = st.sampled_from([0.0, 0.05, core.ASK_AGAIN_S, 0.7, core.SOURCE_SILENCE_S, 5.0])


class LeaseMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.came_s = 0.0
        self.prefix_chunks = 0
        self.complete = self.failed = False
        self.fences = 0
        self.granted: int | None = None
        """What the tracker gave and did not get back."""
        self.core = core.LeaseCore(core.Kind.DATACENTER)
        self.order: core.Order | None = None
        """What is to be answered; None before the start and after the end."""

    @property
    def view(self) -> BlobView:
        return BlobView(
            self.complete, self.failed, self.prefix_chunks, idle_s=self.now_s - self.came_s
        )

    def happens(self, event: core.Event) -> None:
        self.order = self.core.handle(event, self.now_s)
        self.core.validate()
        if isinstance(self.order, core.Use):
            assert self.order.fence == (self.granted or 0)

    @precondition(lambda self: self.order is None)
    @rule(kind=st.sampled_from(core.Kind))
    def starts(self, kind: core.Kind) -> None:
        self.core = core.LeaseCore(kind)
        self.happens(core.Started(self.view))

    # --- what the world answers -----------------------------------------------------------------

    @precondition(lambda self: isinstance(self.order, core.Ask))
    @rule(grants=st.booleans(), held=st.booleans(), holders=st.integers(0, 3))
    def tracker_answers(self, grants: bool, held: bool, holders: int) -> None:
        assert self.granted is None, "a grant is not asked for twice"
        if grants:
            self.fences += 1
            self.granted = self.fences
        holder = member(1) if held else None
        answer = LeaseAnswer(
            1, KEY, self.fences if grants else 0, 60.0, holder=holder, holders=holders
        )
        self.happens(core.Answered(answer, self.view))

    @precondition(lambda self: isinstance(self.order, core.Ask))
    @rule()
    def no_tracker_answers(self) -> None:
        self.happens(core.Answered(None, self.view))
        assert self.order == core.Use()

    @precondition(lambda self: isinstance(self.order, core.Copy))
    @rule(reached=st.booleans())
    def holder_is_sought(self, reached: bool) -> None:
        self.happens((core.Reached if reached else core.NotReached)(self.view))

    @precondition(lambda self: isinstance(self.order, core.Wait))
    @rule(gone=st.booleans())
    def is_woken(self, gone: bool) -> None:
        """For a reason or for none."""
        self.happens(core.Looked(self.view, source_gone=gone))

    # --- the blob -------------------------------------------------------------------------------

    @rule()
    def chunk_comes(self) -> None:
        self.prefix_chunks += 1
        self.came_s = self.now_s

    @rule(really=st.integers(0, 9), fails=st.booleans())
    def is_over(self, really: int, fails: bool) -> None:
        if really == 0:
            self.failed, self.complete = fails, not fails

    # --- the end --------------------------------------------------------------------------------

    @precondition(lambda self: self.order is not None)
    @rule(really=st.integers(0, 3))
    def ends(self, really: int) -> None:
        """After its use, or in the middle of anything: the task was cancelled."""
        if really and not isinstance(self.order, core.Use):
            return
        assert self.core.end() == self.granted
        assert self.core.end() is None, "what was given back is not given back again"
        self.core.validate()
        self.granted, self.order = None, None

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while isinstance(self.order, core.Wait):
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            if next_s > end_s:
                break
            self.now_s = max(self.now_s, next_s)
            self.happens(core.Looked(self.view))
            next_s = self.core.next_deadline_s()
            assert next_s is None or next_s > self.now_s, "what is due was done"
        self.now_s = max(self.now_s, end_s)

    @invariant()
    def whoever_waits_is_not_forgotten(self) -> None:
        if isinstance(self.order, core.Wait):
            next_s = self.core.next_deadline_s()
            assert next_s is not None
            assert next_s <= self.now_s + core.SOURCE_SILENCE_S

    def teardown(self) -> None:
        """Where holders bring nothing and trackers grant nothing, it goes ahead all the same."""
        if self.order is None:
            return
        began_s, quiet_s = self.now_s, core.IN_VAIN_S + 2 * core.SOURCE_SILENCE_S
        while not isinstance(self.order, core.Use):
            assert self.now_s <= began_s + 2 * quiet_s, "it waits for ever"
            match self.order:
                case core.Ask(timeout_s):
                    self.now_s += timeout_s
                    refused = LeaseAnswer(1, KEY, 0, 60.0, holder=member(1))
                    self.happens(core.Answered(refused, self.view))
                case core.Copy():
                    self.happens(core.Reached(self.view))
                case _:
                    self.time_passes(0.5)


TestLeaseMachine = LeaseMachine.TestCase
TestLeaseMachine.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
