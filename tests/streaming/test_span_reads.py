"""Layers read by threads: each span brought once, wrong ones never shown."""

from __future__ import annotations

import errno
import os
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from p2pdist.streaming.core.policy import AHEAD_SPANS, Why
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.layers_tree import NODE_BITS, LayersTree, ListedLayers
from p2pdist.streaming.ports import ROOT_NODE
from p2pdist.streaming.span_reads import LayerSpans, SpanStore
from tests.e2e.harness.processes import wait_until
from tests.streaming.archives import archive, file, gzipped, index_of, symlink, text

CONTENT = text(900_000)
TAR = archive(file("d/f", CONTENT), file("g", b"g" * 10), symlink("l", "d/f"), file(".wh.gone"))
BLOB = gzipped(TAR)
INDEX = index_of(BLOB, span_bytes=64 << 10)


class Ranges:
    """Counts what is asked for; may hold back, fail or lie."""

    def __init__(self, *, elsewhere: bool = True) -> None:
        self.elsewhere = elsewhere
        self.asked: list[tuple[int, int]] = []
        self.again = 0
        self.gate = threading.Event()
        self.gate.set()
        self.lies = 0
        self.fails = 0

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        self.asked.append((start, stop))
        self.again += again
        assert self.gate.wait(30)
        if self.fails:
            self.fails -= 1
            raise OSError(errno.EIO, "nobody brings it")
        data = bytearray(BLOB[start:stop])
        if self.lies:
            self.lies -= 1
            data[len(data) // 2] ^= 1
        return bytes(data)


@pytest.fixture
def ranges() -> Ranges:
    return Ranges()


def tree_over(ranges: Ranges, *, store: SpanStore | None = None, layers: int = 1) -> LayersTree:
    store = store or SpanStore()
    made = [
        (LayerTree(INDEX.entries), LayerSpans(number, INDEX, ranges, store))
        for number in range(layers)
    ]
    return LayersTree(ListedLayers(made))


def walk(tree: LayersTree, path: bytes) -> int:
    node = ROOT_NODE
    for name in path.split(b"/"):
        child = tree.child(node, name)
        assert child is not None, name
        node = child
    return node


def test_a_file_is_read_from_any_place_to_any_place(ranges: Ranges) -> None:
    tree = tree_over(ranges)
    node = walk(tree, b"0/d/f")
    for offset, size in ((0, 10), (123_456, 200_000), (0, 2_000_000), (899_999, 5), (900_000, 5)):
        assert tree.read(node, offset, size) == CONTENT[offset : offset + size]


def test_a_span_that_many_wait_for_is_brought_once(ranges: Ranges) -> None:
    tree = tree_over(ranges)
    node = walk(tree, b"0/g")
    ranges.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        reads = [pool.submit(tree.read, node, 0, 10) for _ in range(8)]
        ranges.gate.set()
        assert [read.result() for read in reads] == [b"g" * 10] * 8
    assert len(set(ranges.asked)) == len(ranges.asked) == 1


def test_who_reads_on_gets_the_next_spans_before_asking(ranges: Ranges) -> None:
    tree = tree_over(ranges)
    node = walk(tree, b"0/d/f")
    tree.read(node, 0, 100)
    until_s = time.monotonic() + 30
    while len(ranges.asked) < 1 + AHEAD_SPANS and time.monotonic() < until_s:
        time.sleep(0.001)  # threads of its own fetch ahead
    assert set(ranges.asked) == {INDEX.span_range(n) for n in range(1 + AHEAD_SPANS)}
    for at in range(0, 900_000, 50_000):
        tree.read(node, at, 50_000)
    assert sorted(set(ranges.asked)) == sorted(ranges.asked)


# --- expected by starts of other hosts ------------------------------------------------------------


def spans_over(ranges: Ranges, store: SpanStore) -> LayerSpans:
    return LayerSpans(0, INDEX, ranges, store)


def test_an_expected_span_is_brought_once_for_all_its_readers(ranges: Ranges) -> None:
    layer = spans_over(ranges, SpanStore())
    assert layer.open_expected(3)
    assert not layer.open_expected(3), "it is here"
    begins = INDEX.spans[3].out_offset
    for at in (begins, begins + 100, begins):
        assert layer.read(at, 50, file_end=at + 50) == TAR[at : at + 50]
    assert ranges.asked == [INDEX.span_range(3)]


def test_who_reads_what_is_being_brought_for_him_waits_for_that(ranges: Ranges) -> None:
    store = SpanStore()
    layer = spans_over(ranges, store)
    begins = INDEX.spans[3].out_offset
    ranges.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        expected = pool.submit(layer.open_expected, 3)
        wait_until(lambda: bool(ranges.asked), "the order for it")
        read = pool.submit(layer.read, begins, 50, file_end=begins + 50)
        wait_until(lambda: store.counts.reads().waiting == 1, "its reader")
        ranges.gate.set()
        assert read.result(30) == TAR[begins : begins + 50]
        expected.result(30)
    assert len(ranges.asked) == 1
    assert store.unread_bytes == 0, "one has read it"


def test_what_is_expected_beyond_its_room_comes_to_the_mirror_alone(ranges: Ranges) -> None:
    store = SpanStore()
    layer = spans_over(ranges, store)
    layer.have_brought(2)
    start, stop = INDEX.span_range(2)
    assert ranges.asked == [(start, stop)]
    assert store.counts.reads().fetched_bytes[Why.EXPECTED] == stop - start
    assert store.kept((0, 2)) is None


def test_what_is_expected_does_not_push_out_what_was_read(ranges: Ranges) -> None:
    length = INDEX.span_end(0)
    store = SpanStore(kept_bytes=length)
    layer = spans_over(ranges, store)
    layer.read(0, 10, file_end=10)
    layer.open_expected(4)
    layer.read(0, 10, file_end=10)
    assert ranges.asked == [INDEX.span_range(0), INDEX.span_range(4)]


def test_wrong_bytes_that_are_expected_are_shown_to_nobody(ranges: Ranges) -> None:
    layer = spans_over(ranges, SpanStore())
    begins = INDEX.spans[3].out_offset
    ranges.lies = 2
    with pytest.raises(OSError, match="not the bytes"):
        layer.open_expected(3)
    assert layer.read(begins, 50, file_end=begins + 50) == TAR[begins : begins + 50]
    assert ranges.again == 1


def test_wrong_bytes_are_asked_for_once_more_and_then_an_error(ranges: Ranges) -> None:
    tree = tree_over(ranges)
    node = walk(tree, b"0/g")
    ranges.lies = 1
    assert tree.read(node, 0, 10) == b"g" * 10
    assert ranges.again == 1, "the mirror is told that it was wrong"
    tree = tree_over(ranges)
    ranges.lies = 2
    with pytest.raises(OSError, match="not the bytes") as caught:
        tree.read(node, 0, 10)
    assert caught.value.errno == errno.EIO
    assert tree.read(node, 0, 10) == b"g" * 10  # an error is not kept


def test_what_nobody_brings_is_an_error_for_all_who_wait(ranges: Ranges) -> None:
    tree = tree_over(ranges)
    node = walk(tree, b"0/g")
    ranges.fails = 1
    with pytest.raises(OSError, match="nobody brings it"):
        tree.read(node, 0, 10)
    assert tree.read(node, 0, 10) == b"g" * 10


def test_what_does_not_fit_is_read_all_the_same(ranges: Ranges) -> None:
    tree = tree_over(ranges, store=SpanStore(kept_bytes=1000))
    assert tree.read(walk(tree, b"0/d/f"), 0, 900_000) == CONTENT


# --- counts ---------------------------------------------------------------------------------------


def test_reads_are_counted_by_what_became_of_them(ranges: Ranges) -> None:
    store = SpanStore()
    tree = tree_over(ranges, store=store)
    node = walk(tree, b"0/g")
    tree.read(node, 0, 10)
    tree.read(node, 2, 3)
    ranges.fails = 1
    other = walk(tree, b"0/d/f")
    with pytest.raises(OSError, match="nobody brings it"):
        tree.read(other, 500_000, 10)

    counted = store.counts.reads()
    assert counted.read_bytes == 13
    assert counted.outcomes == (1, 1, 1)
    start, stop = ranges.asked[0]
    assert counted.fetched_bytes[Why.DEMAND] == stop - start
    assert sum(counted.waits) == 2
    assert counted.waiting == 0


def test_bytes_ahead_of_a_reader_are_no_demand(ranges: Ranges) -> None:
    store = SpanStore()
    tree = tree_over(ranges, store=store)
    tree.read(walk(tree, b"0/d/f"), 0, 100)

    ahead = sum(stop - start for start, stop in map(INDEX.span_range, range(1, 1 + AHEAD_SPANS)))
    wait_until(lambda: store.counts.reads().fetched_bytes[Why.AHEAD] == ahead, "its count")
    first, end = INDEX.span_range(0)
    assert store.counts.reads().fetched_bytes[Why.DEMAND] == end - first


def test_nobody_waits_for_a_layer_that_lies_here() -> None:
    store = SpanStore()
    tree = tree_over(Ranges(elsewhere=False), store=store)
    tree.read(walk(tree, b"0/g"), 0, 10)

    counted = store.counts.reads()
    assert counted.outcomes == (1, 0, 0)
    assert counted.read_bytes == 10
    assert sum(counted.fetched_bytes) == sum(counted.waits) == 0


def test_who_waits_is_counted_while_it_lasts(ranges: Ranges) -> None:
    store = SpanStore()
    tree = tree_over(ranges, store=store)
    ranges.gate.clear()
    with ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(tree.read, walk(tree, b"0/g"), 0, 10) for _ in range(2)]
        wait_until(lambda: store.counts.reads().waiting == 2, "two that wait")
        ranges.gate.set()
        assert [read.result() for read in reads] == [b"g" * 10] * 2
    assert store.counts.reads().waiting == 0


# --- layers as a tree -----------------------------------------------------------------------------


def test_layers_are_directories_with_numbers_of_their_own(ranges: Ranges) -> None:
    tree = tree_over(ranges, layers=3)
    assert tree.attributes(ROOT_NODE).links == 5
    assert [name for name, _ in tree.children(ROOT_NODE)] == [b"0", b"1", b"2"]
    nodes = [walk(tree, b"%d/g" % n) for n in range(3)]
    assert len({node >> NODE_BITS for node in nodes}) == 3
    assert len({node & ((1 << NODE_BITS) - 1) for node in nodes}) == 1
    for node in nodes:
        assert tree.attributes(node).node == node
        assert tree.read(node, 0, 10) == b"g" * 10
    for name, node in tree.children(walk(tree, b"2")):
        assert tree.child(walk(tree, b"2"), name) == node
    assert tree.target(walk(tree, b"1/l")) == b"d/f"
    assert stat.S_ISCHR(tree.attributes(walk(tree, b"1/gone")).mode)


@pytest.mark.parametrize("name", [b"3", b"-1", b"x", b"", b"0" * 30, "١".encode()])
def test_no_other_name_is_a_layer(ranges: Ranges, name: bytes) -> None:
    assert tree_over(ranges, layers=3).child(ROOT_NODE, name) is None


@pytest.mark.parametrize("node", [0, 2, 1 << NODE_BITS, (1 << NODE_BITS) + 999, 9 << NODE_BITS])
def test_a_node_that_is_not_there_is_stale(ranges: Ranges, node: int) -> None:
    tree = tree_over(ranges)
    for ask in (tree.attributes, tree.children, tree.target, tree.xattrs):
        with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
            ask(node)
