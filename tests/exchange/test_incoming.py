"""What may come over a link: what was asked for, in order, each part once."""

from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.exchange.buffers import BufferPool
from p2pdist.exchange.frames import Data, Small
from p2pdist.exchange.incoming import FORGOTTEN_MAX, Incoming, Whole
from p2pdist.model.ids import RequestId

ONE, TWO = RequestId(1), RequestId(2)


def data(request: int, chunk: int, offset: int, payload: bytes) -> Data:
    return Data(RequestId(request), chunk, offset, memoryview(payload))


@pytest.fixture
def incoming() -> Incoming:
    return Incoming(BufferPool())


def test_chunks_come_whole_and_in_order(incoming: Incoming) -> None:
    incoming.expect_chunks(ONE, [(7, 4), (9, 2)])

    assert incoming.take(data(1, 7, 0, b"ab")) is None
    assert incoming.take(data(1, 7, 2, b"cd")) == Whole(1, bytearray(b"abcd"), 7)
    assert incoming
    assert incoming.take(data(1, 9, 0, b"ef")) == Whole(1, bytearray(b"ef"), 9)
    assert not incoming


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (data(2, 7, 0, b"ab"), "nobody asked for"),
        (data(1, 9, 0, b"ab"), "another chunk"),
        (data(1, 7, 1, b"ab"), "wrong offset"),
        (data(1, 7, 0, b"abcde"), "wrong offset"),
    ],
)
def test_anything_else_is_the_senders_fault(incoming: Incoming, wrong: Data, says: str) -> None:
    incoming.expect_chunks(ONE, [(7, 4), (9, 2)])

    with pytest.raises(PeerFault, match=says):
        incoming.take(wrong)


def test_a_small_body_is_announced_first(incoming: Incoming) -> None:
    incoming.expect_small(ONE)
    with pytest.raises(PeerFault, match="another chunk"):
        incoming.take(data(1, 0, 0, b"body"))

    assert incoming.take_small(Small(ONE, 4, "text/plain")) is None
    assert incoming.take(data(1, 0, 0, b"body")) == Whole(
        1, bytearray(b"body"), media_type="text/plain"
    )
    incoming.expect_small(TWO)
    assert incoming.take_small(Small(TWO, 0, "")) == Whole(2, bytearray(), media_type="")
    assert not incoming


def test_a_small_body_in_place_of_chunks_or_twice_is_refused(incoming: Incoming) -> None:
    incoming.expect_chunks(ONE, [(7, 4)])
    incoming.expect_small(TWO)
    incoming.take_small(Small(TWO, 4, ""))

    for head in (Small(ONE, 4, ""), Small(TWO, 4, "")):
        with pytest.raises(PeerFault, match="in place of chunks"):
            incoming.take_small(head)
    with pytest.raises(PeerFault, match="nobody asked for"):
        incoming.take_small(Small(RequestId(3), 4, ""))


def test_what_was_given_up_is_dropped_when_it_comes_and_not_for_ever(incoming: Incoming) -> None:
    for request in range(FORGOTTEN_MAX + 1):
        incoming.expect_chunks(request, [(0, 1)])
        incoming.forget(request)

    assert not incoming
    assert incoming.take(data(FORGOTTEN_MAX, 0, 0, b"x")) is None
    assert incoming.take_small(Small(ONE, 1, "")) is None
    with pytest.raises(PeerFault, match="nobody asked for"):
        incoming.take(data(0, 0, 0, b"x"))
