"""Whatever is shown, read, brought, refused and removed, and when: ranks and bounds hold, and every
order comes to an end.

State machines of Hypothesis, which play the shells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pdist.model.ids import Digest, digest_of
from p2pdist.streaming.core import policy
from p2pdist.streaming.core.policy import (
    AheadEvent,
    AheadOrder,
    AheadPolicy,
    FillEvent,
    FillOrder,
    FillPolicy,
    SpanKey,
    Why,
)

SPANS = st.integers(0, 12)
SIZES = st.sampled_from([1 << 20, 8 << 20, 30 << 20, 64 << 20])
TIMES = st.sampled_from([0.0, 0.5, 1.0, 7.0, 29.0, policy.EXPECTED_S])


def rank(order: AheadOrder) -> Why:
    return order.why if isinstance(order, policy.Open) else Why.EXPECTED


class AheadMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.policy = AheadPolicy()
        self.layers = 0
        self.shown: set[int] = set()
        self.under_way: list[policy.Open | policy.Bring] = []
        self.unread: dict[SpanKey, tuple[int, float]] = {}
        """Of the store: what lies open there; its bytes, and since when."""
        self.read: set[SpanKey] = set()
        self.wanted: set[SpanKey] = set()
        """Of traces, and nobody has read, fetched or given it up."""

    def happens(self, event: AheadEvent) -> None:
        self.ordered(self.policy.handle(event, self.now_s))

    def ordered(self, orders: Iterable[AheadOrder]) -> None:
        self.policy.validate()
        last = Why.DEMAND
        for order in orders:
            key = (order.layer, order.span)
            if isinstance(order, policy.Drop):
                self.unread.pop(key, None)
                continue
            assert order.layer in self.shown, "of what is gone nothing is ordered"
            assert rank(order) >= last, "who reads on goes before what is expected"
            last = rank(order)
            if last is Why.EXPECTED:
                assert key not in self.read, "who reads it has it"
            assert all(key != (other.layer, other.span) for other in self.under_way)
            assert key not in self.unread
            self.wanted.discard(key)
            self.under_way.append(order)

    @precondition(lambda self: self.layers < 4)
    @rule(trace=st.lists(SPANS, max_size=8, unique=True), nbytes=SIZES)
    def layer_is_shown(self, trace: Sequence[int], nbytes: int) -> None:
        self.layers += 1
        self.shown.add(self.layers)
        self.wanted |= {(self.layers, span) for span in trace}
        self.happens(policy.Shown(self.layers, [(span, nbytes) for span in trace]))

    @precondition(lambda self: self.layers)
    @rule(data=st.data(), span=SPANS, more=st.integers(0, 6))
    def somebody_reads(self, data: st.DataObject, span: int, more: int) -> None:
        """Also of a layer that is gone, and on from there."""
        layer = data.draw(st.integers(1, self.layers))
        for number in range(span, span + data.draw(st.integers(1, 3))):
            key = (layer, number)
            self.read.add(key)
            self.wanted.discard(key)
            self.happens(policy.Read(layer, number, span + more))
            self.unread.pop(key, None)  # as it does that asks the store then

    @precondition(lambda self: self.under_way)
    @rule(data=st.data(), comes=st.booleans())
    def order_ends(self, data: st.DataObject, comes: bool) -> None:
        self.ends(data.draw(st.integers(0, len(self.under_way) - 1)), comes=comes)

    def ends(self, number: int, *, comes: bool) -> None:
        order = self.under_way.pop(number)
        key = (order.layer, order.span)
        unread = comes and isinstance(order, policy.Open) and order.why is Why.EXPECTED
        if unread:
            assert isinstance(order, policy.Open)
            self.unread[key] = order.nbytes, self.now_s
        self.happens(policy.Ended(order, unread=unread))
        if key in self.read:
            self.unread.pop(key, None)  # its reader waits for it

    @precondition(lambda self: self.shown)
    @rule(data=st.data())
    def layer_goes(self, data: st.DataObject) -> None:
        layer = data.draw(st.sampled_from(sorted(self.shown)))
        self.shown.remove(layer)
        self.wanted = {key for key in self.wanted if key[0] != layer}
        self.happens(policy.Gone(layer))

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while (due_s := self.policy.next_deadline_s()) is not None and due_s <= end_s:
            self.now_s = max(self.now_s, due_s)
            self.ordered(self.policy.handle_deadline(self.now_s))
            due_s = self.policy.next_deadline_s()
            assert due_s is None or due_s > self.now_s, "what is due was done"
        self.now_s = end_s

    @invariant()
    def bounds_hold(self) -> None:
        ahead = sum(rank(order) is Why.AHEAD for order in self.under_way)
        assert ahead <= policy.AHEAD_AT_ONCE
        assert len(self.under_way) - ahead <= policy.EXPECTED_AT_ONCE
        assert sum(nbytes for nbytes, _ in self.unread.values()) <= policy.EXPECTED_BYTES
        for (layer, _), (_, since_s) in self.unread.items():
            assert layer in self.shown, "what is gone takes no room"
            assert self.now_s < since_s + policy.EXPECTED_S

    def teardown(self) -> None:
        """All that was expected is fetched, or read, or given up, and nothing stays for ever."""
        while self.under_way:
            self.ends(0, comes=True)
        assert not self.wanted
        self.time_passes(policy.EXPECTED_S)
        assert not self.unread
        assert self.policy.next_deadline_s() is None


LAYERS = [digest_of(bytes([number])) for number in range(5)]


class FillMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0
        self.policy = FillPolicy()
        self.shown = [LAYERS[0]]
        self.at_mirror: set[Digest] = set()
        self.todo: list[FillOrder] = []
        """Orders that are not answered yet; the shell does one after the other."""
        self.looked: Sequence[Digest] = []
        self.happens(policy.More())

    def happens(self, event: FillEvent) -> None:
        self.ordered(self.policy.handle(event, self.now_s))

    def ordered(self, orders: list[FillOrder]) -> None:
        self.policy.validate()
        for order in orders:
            match order:
                case policy.Held(layer):
                    assert layer in self.at_mirror
                case policy.Fill(layer):
                    assert layer in self.looked, "only what was shown at the last look"
                    assert layer not in self.policy.held
                    self.todo.append(order)
                case policy.Look():
                    self.todo.append(order)
        assert len(self.todo) <= 1

    @rule(layers=st.lists(st.sampled_from(LAYERS)))
    def other_layers_are_shown(self, layers: list[Digest]) -> None:
        new = set(layers) - set(self.shown)
        self.shown = [digest for digest in LAYERS if digest in layers]
        if new:
            self.happens(policy.More())

    @rule(layer=st.sampled_from(LAYERS), there=st.booleans())
    def layer_is_at_mirror(self, layer: Digest, there: bool) -> None:
        (self.at_mirror.add if there else self.at_mirror.discard)(layer)

    @precondition(lambda self: self.todo)
    @rule(answers=st.booleans())
    def order_is_answered(self, answers: bool) -> None:
        match self.todo.pop():
            case policy.Look():
                self.looked = [digest for digest in LAYERS if digest in self.shown]
                self.happens(policy.Lacking(self.looked))
            case policy.Fill(layer):
                held = answers and layer in self.at_mirror
                self.happens(policy.Asked(layer, held=held))

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        if (due_s := self.policy.next_deadline_s()) is not None and due_s <= end_s:
            self.now_s = max(self.now_s, due_s)
            self.ordered(self.policy.handle_deadline(self.now_s))
            assert self.policy.next_deadline_s() is None
        self.now_s = end_s

    @invariant()
    def it_never_rests_for_long_while_something_lacks(self) -> None:
        due_s = self.policy.next_deadline_s()
        if not self.todo and due_s is None:
            assert self.policy.held == set(self.looked)
        elif due_s is not None:
            assert due_s <= self.now_s + policy.FILL_AGAIN_MAX_S

    def teardown(self) -> None:
        """When the mirror has it all, all is found to be held, and nobody asks any more."""
        self.at_mirror = set(LAYERS)
        for _ in range(50):
            if self.todo:
                self.order_is_answered(True)
            else:
                self.time_passes(policy.FILL_AGAIN_MAX_S)
        assert not self.todo
        assert self.policy.next_deadline_s() is None
        assert set(self.shown) <= self.policy.held


TestAheadMachine = AheadMachine.TestCase
TestAheadMachine.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)
TestFillMachine = FillMachine.TestCase
TestFillMachine.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
