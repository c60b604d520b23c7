"""What starts read of a layer, made one of many hosts' traces."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.control import TRACE_UNIT_MAX, TRACE_UNITS_MAX
from p2pdist.model.ids import digest_of
from p2pdist.oci.traces import BODY_BYTES_MAX, decode_trace, encode_trace
from p2pdist.tracker.core.traces import AT_ONCE_MAX, EVERY_S, LAYERS_MAX, WEIGHT_MAX, Traces

LAYER, OTHER = digest_of(b"layer"), digest_of(b"other")


def test_what_one_start_read_the_next_is_told_in_its_order() -> None:
    traces = Traces()
    traces.add(LAYER, [7, 3, 900], 0.0)

    assert traces.of(LAYER) == [7, 3, 900]
    assert traces.of(OTHER) == []


def test_what_most_read_first_comes_first() -> None:
    traces = Traces()
    for trace in ([1, 2, 3], [1, 2, 3], [3, 1, 2]):
        traces.add(LAYER, trace, 0.0)

    assert traces.of(LAYER) == [1, 2, 3]


def test_what_few_read_is_not_told() -> None:
    traces = Traces()
    traces.add(LAYER, [1, 99], 0.0)
    for _ in range(4):
        traces.add(LAYER, [1, 2], 0.0)

    assert traces.of(LAYER) == [1, 2]


def test_an_image_that_reads_something_else_by_now_is_followed() -> None:
    traces = Traces()
    for number in range(WEIGHT_MAX):
        traces.add(LAYER, [1, 2], number * EVERY_S)
    for number in range(8 * WEIGHT_MAX):
        traces.add(LAYER, [5], (WEIGHT_MAX + number) * EVERY_S)
        traces.validate()

    assert traces.of(LAYER) == [5]


def test_a_fleet_that_starts_at_once_is_not_counted_host_by_host() -> None:
    traces = Traces()
    for _ in range(AT_ONCE_MAX):
        traces.add(LAYER, [1], 0.0)
    for _ in range(100):
        traces.add(LAYER, [2], 1.0)
    assert traces.of(LAYER) == [1]

    for number in range(4):
        traces.add(LAYER, [2], (number + 1) * EVERY_S)
    assert traces.of(LAYER) == [1, 2]


def test_layers_are_bounded_and_the_least_used_go() -> None:
    traces = Traces()
    traces.add(LAYER, [1], 0.0)
    for number in range(LAYERS_MAX - 1):
        traces.add(digest_of(b"%d" % number), [1], 0.0)
    assert traces.of(LAYER) == [1]

    traces.add(OTHER, [1], 0.0)

    assert len(traces) == LAYERS_MAX
    assert traces.of(LAYER) == [1]
    assert traces.of(digest_of(b"0")) == []


@given(
    st.lists(
        st.lists(st.integers(0, TRACE_UNIT_MAX), max_size=TRACE_UNITS_MAX), min_size=1, max_size=80
    )
)
def test_whatever_is_sent_is_bounded_and_of_what_was_sent(sent: list[list[int]]) -> None:
    traces = Traces()
    for number, units in enumerate(sent):
        traces.add(LAYER, units, number * EVERY_S)
        traces.validate()

    told = traces.of(LAYER)
    assert len(told) <= TRACE_UNITS_MAX
    assert len(set(told)) == len(told)
    assert set(told) <= {unit for units in sent for unit in units}
    assert len(encode_trace(told)) < BODY_BYTES_MAX


def test_hosts_that_say_as_much_as_they_can_make_no_longer_trace() -> None:
    """Each another half of what can be said, at its far end."""
    traces = Traces()
    for host in range(WEIGHT_MAX):
        first = TRACE_UNIT_MAX - (host + 2) * TRACE_UNITS_MAX // 2 + 1
        traces.add(LAYER, list(range(first, first + TRACE_UNITS_MAX)), host * EVERY_S)
        traces.validate()
        told = traces.of(LAYER)
        assert len(told) <= TRACE_UNITS_MAX
        assert len(encode_trace(told)) < BODY_BYTES_MAX
        assert decode_trace(encode_trace(told)) == told
