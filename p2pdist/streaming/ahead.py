"""Has spans fetched before anybody asks for them, as `core/policy.py` says, by threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol
from weakref import WeakValueDictionary

from p2pdist.streaming.core import policy
from p2pdist.streaming.core.policy import (
    AheadEvent,
    AheadOrder,
    AheadPolicy,
    Expected,
    SpanKey,
    Why,
)


class Spans(Protocol):
    """Those of one layer. For any thread; what fetches raises OSError."""

    def open_ahead(self, span: int) -> None: ...

    def open_expected(self, span: int) -> bool:
        """Tell whether it is open now, and nobody has asked for it until now."""
        ...

    def have_brought(self, span: int) -> None: ...


class Ahead:
    """Of all layers that a process reads. For any thread; nobody hears of a failure, and who reads
    what failed asks for it anew."""

    def __init__(self, clock: Callable[[], float], drop: Callable[[SpanKey], None]) -> None:
        """`clock`: monotonic, in seconds. `drop`: what was opened, and nobody asks for."""
        self._clock = clock
        self._drop = drop
        self._lock = threading.Lock()
        self._policy = AheadPolicy()
        self._layers: WeakValueDictionary[int, Spans] = WeakValueDictionary()
        """Whoever reads a layer holds it; the threads end when nobody reads anything any more."""
        places = policy.AHEAD_AT_ONCE + policy.EXPECTED_AT_ONCE
        self._threads = ThreadPoolExecutor(places, thread_name_prefix="ahead")

    def shown(self, layer: int, spans: Spans, expected: Sequence[Expected]) -> None:
        self._layers[layer] = spans
        self._handle(policy.Shown(layer, expected))

    def read(self, layer: int, span: int, file_last: int) -> None:
        """Said before the span is looked for."""
        self._handle(policy.Read(layer, span, file_last))

    def gone(self, layer: int) -> None:
        self._handle(policy.Gone(layer))
        self._layers.pop(layer, None)

    def look_at_the_clock(self) -> None:
        """Called now and then: what it is for may wait."""
        with self._lock:
            orders = self._policy.handle_deadline(self._clock())
        self._carry_out(orders)

    def _handle(self, event: AheadEvent) -> None:
        with self._lock:
            orders = self._policy.handle(event, self._clock())
        if orders:
            self._carry_out(orders)

    def _carry_out(self, orders: Iterable[AheadOrder]) -> None:
        for order in orders:
            if isinstance(order, policy.Drop):
                self._drop((order.layer, order.span))
            else:
                self._threads.submit(self._fetch, order, self._layers.get(order.layer))

    def _fetch(self, order: policy.Open | policy.Bring, spans: Spans | None) -> None:
        unread = False
        try:
            with contextlib.suppress(OSError):
                unread = spans is not None and _fetched(order, spans)
        finally:
            self._handle(policy.Ended(order, unread))


def _fetched(order: policy.Open | policy.Bring, spans: Spans) -> bool:
    """Whether it is unread. Raises OSError."""
    match order:
        case policy.Bring():
            spans.have_brought(order.span)
        case policy.Open(why=Why.EXPECTED):
            return spans.open_expected(order.span)
        case _:
            spans.open_ahead(order.span)
    return False
