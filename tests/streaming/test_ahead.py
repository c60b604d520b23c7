"""What is fetched before anybody asks: beside what is read, and never for what is gone."""

from __future__ import annotations

import threading

import pytest

from p2pdist.streaming.core.policy import EXPECTED_S, TRACE_UNIT_BYTES, Why, expected_spans
from p2pdist.streaming.read_counts import ReadCounts
from p2pdist.streaming.span_reads import LayerSpans, SpanStore
from tests.e2e.harness.processes import wait_until
from tests.fakes.pulling import random_bytes
from tests.streaming.archives import archive, file, gzipped, index_of

TAR = archive(file("a", random_bytes(6 << 20, 1)))
BLOB = gzipped(TAR)
INDEX = index_of(BLOB)


class Ranges:
    """Hands nothing out before it is let go."""

    elsewhere = True

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []
        self.go = threading.Event()
        self.fault: OSError | None = None

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        self.asked.append((start, stop))
        assert self.go.wait(20)
        if self.fault is not None:
            # anew: one that was raised holds what it passed through
            raise OSError(*self.fault.args)
        return BLOB[start:stop]


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Place:
    def __init__(self) -> None:
        self.ranges, self.clock, self.counts = Ranges(), Clock(), ReadCounts()
        self.store = SpanStore(counts=self.counts, clock=self.clock)

    def shown(self, *units: int) -> LayerSpans:
        return LayerSpans(0, INDEX, self.ranges, self.store, expected=units)

    def all_open(self, *units: int) -> None:
        """Return when all of it is, and unread."""
        nbytes = sum(nbytes for _, nbytes in expected_spans(INDEX, units))
        wait_until(lambda: self.store.unread_bytes == nbytes, "what is expected")


@pytest.mark.parametrize("fault", [None, OSError("away")])
def test_what_is_expected_is_brought_beside_what_is_read(fault: OSError | None) -> None:
    """One span after the other, and the next one also after one that nobody brings."""
    place = Place()
    ranges, ranges.fault = place.ranges, fault
    layer = place.shown(4, 1, 1, 999_999)

    wanted = [INDEX.span_range(span) for span, _ in expected_spans(INDEX, [4, 1])]
    wait_until(lambda: ranges.asked == wanted[:1], "the first order")
    ranges.go.set()
    wait_until(lambda: len(ranges.asked) == len(wanted), "what is expected")
    assert ranges.asked == wanted
    brought = 0 if fault is not None else sum(stop - start for start, stop in wanted)
    wait_until(lambda: place.counts.reads().fetched_bytes[Why.EXPECTED] == brought, "its count")
    assert layer.index is INDEX, "somebody reads it until here"


def test_what_is_expected_is_open_when_it_is_read() -> None:
    """Its reader neither waits nor has it brought a second time."""
    place = Place()
    place.ranges.go.set()
    layer = place.shown(2)
    place.all_open(2)
    asked = list(place.ranges.asked)

    at = 2 * TRACE_UNIT_BYTES
    data = layer.read(at, 4096, file_end=at + 4096)

    assert data == TAR[at : at + 4096]
    assert place.ranges.asked == asked
    assert place.counts.reads().fetched_bytes[Why.DEMAND] == 0


def test_what_nobody_reads_is_given_up() -> None:
    place = Place()
    place.ranges.go.set()
    layer = place.shown(1)
    place.all_open(1)

    place.clock.now_s += EXPECTED_S
    place.store.ahead.look_at_the_clock()

    assert place.store.unread_bytes == 0
    assert layer.read(0, 10, file_end=10) == TAR[:10]


def test_of_what_is_gone_nothing_is_fetched_and_nothing_kept() -> None:
    place = Place()
    ranges = place.ranges
    layer = place.shown(4, 1)
    wait_until(lambda: len(ranges.asked) == 1, "the first order")

    place.store.ahead.gone(0)
    ranges.go.set()
    other = LayerSpans(1, INDEX, ranges, place.store, expected=[2])

    place.all_open(2)
    wanted = [INDEX.span_range(span) for span, _ in expected_spans(INDEX, [2])]
    assert ranges.asked[1:] == wanted
    assert layer.index is other.index, "both are read until here"
