"""What simulated cards make of bytes: rates, sharing, windows, latency."""

from __future__ import annotations

from collections import deque
from functools import partial

import pytest

from bench.sim.clock import Clock
from bench.sim.wire import UNSENT_BYTES, Card, End, Lane, Outage, Parcel, Route, Run
from p2pdist.exchange.frames import SLICE_BYTES_MAX

MB = 1_000_000


class Wire:
    """Hosts at 0.5 MB/s, 0.1 s apart, and when which chunk came where; one takes 0.1 s."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.came: list[tuple[str, int, float]] = []
        self.left: list[int] = []

    def card(self, bytes_per_s: float = MB / 2) -> Card:
        return Card(self.clock, bytes_per_s, bytes_per_s)

    def end(self, name: str, here: Card, there: Card, route: Route | None = None) -> End:
        return End(
            self.clock,
            here,
            there,
            route or Route(0.1),
            take_chunk=lambda p: self.came.append((name, p.chunk, round(self.clock.now_s, 6))),
            take_frames=lambda data: None,
        )

    def run(self, *chunks: int, nbytes: int = 50_000, request: int = 1) -> Run:
        parcels = deque(Parcel(request, chunk, nbytes) for chunk in chunks)
        return Run(request, parcels, self.left.append)

    def until_over(self) -> None:
        self.clock.run(lambda: False, end_s=1000.0)


def test_a_chunk_takes_its_bytes_and_the_latency() -> None:
    wire = Wire()
    wire.end("a", wire.card(), wire.card()).add(wire.run(0, 1))
    wire.until_over()

    assert wire.came == [("a", 0, 0.2), ("a", 1, 0.3)]
    assert wire.left == [0b11]


def test_links_share_a_card_in_turn() -> None:
    wire = Wire()
    seed = wire.card()
    for name in ("a", "b"):
        wire.end(name, seed, wire.card()).add(wire.run(0, 1, 2))
    wire.until_over()

    assert [name for name, _, _ in wire.came] == ["a", "a", "b", "a", "b", "b"]
    assert wire.came[-1][2] == pytest.approx(0.7)


def test_a_slow_receiver_holds_up_its_own_link_only() -> None:
    """What is on its way to it is bounded, and the card serves others meanwhile."""
    wire = Wire()
    seed = wire.card(100 * MB)
    count = 30
    near = Route(0.001)
    wire.end("slow", seed, wire.card(MB / 2), near).add(wire.run(*range(count)))
    wire.end("quick", seed, wire.card(100 * MB), near).add(wire.run(*range(count)))
    wire.until_over()

    last = {name: at_s for name, _, at_s in wire.came}
    assert last["quick"] < 0.05, "it waited for more than a window of the slow one"
    assert last["slow"] == pytest.approx(count * 0.1, rel=0.02)


def test_what_no_cancel_overtakes_is_as_little_as_a_kernel_holds() -> None:
    wire = Wire()
    end = wire.end("a", wire.card(100 * MB), wire.card(MB), Route(0.001))
    end.add(wire.run(*range(30), nbytes=100_000))
    wire.clock.at(0.05, partial(end.cancel, 1))
    wire.until_over()

    assert end.received_bytes <= UNSENT_BYTES + 0.004 * MB + SLICE_BYTES_MAX
    assert end.received_bytes == 100_000 * len(wire.came) + end.there.cut_bytes


def test_a_chunk_that_takes_long_is_seen_to_come() -> None:
    wire = Wire()
    end = wire.end("a", wire.card(), wire.card())
    end.add(wire.run(0, nbytes=100_000))
    wire.clock.run(lambda: False, end_s=0.25)

    assert wire.came == []
    assert end.received_bytes == SLICE_BYTES_MAX


def test_what_comes_while_nothing_passes_comes_afterwards() -> None:
    wire = Wire()
    route = Route(0.1, outages=(Outage(0.25, 5.0),))
    wire.end("a", wire.card(), wire.card(), route).add(wire.run(0, 1, 2))
    wire.until_over()

    assert wire.came == [("a", 0, 0.2), ("a", 1, 5.0), ("a", 2, 5.0)]


def test_where_bytes_stand_for_more_fewer_are_on_their_way() -> None:
    wire = Wire()
    end = wire.end(
        "a", wire.card(100 * MB), wire.card(MB), Route(0.001, unsent_bytes=UNSENT_BYTES / 100)
    )
    end.add(wire.run(*range(30), nbytes=100_000))
    wire.clock.at(0.05, partial(end.cancel, 1))
    wire.until_over()

    assert end.received_bytes <= 2 * SLICE_BYTES_MAX


def test_the_same_bytes_may_be_on_all_lanes_at_once() -> None:
    wire = Wire()
    between = Lane(MB / 2)
    wire.end("a", wire.card(), wire.card(), Route(0.1, (between,))).add(wire.run(0))
    wire.until_over()

    assert wire.came == [("a", 0, 0.2)]
    assert between.bytes_total == 50_000


def test_two_senders_share_a_receiver() -> None:
    wire = Wire()
    there = wire.card()
    for name in ("a", "b"):
        wire.end(name, wire.card(), there).add(wire.run(0, 1))
    wire.until_over()

    assert wire.came[-1][2] == pytest.approx(0.5)


def test_what_is_cancelled_does_not_leave() -> None:
    wire = Wire()
    end = wire.end("a", wire.card(), wire.card())
    end.add(wire.run(0, 1, 2, 3, request=7))
    wire.clock.at(0.15, partial(end.cancel, 7))
    wire.until_over()

    assert [chunk for _, chunk, _ in wire.came] == [0, 1]
    assert wire.left == [0b11]


def test_a_link_that_closed_brings_nothing_and_says_what_left() -> None:
    wire = Wire()
    end = wire.end("a", wire.card(), wire.card())
    end.add(wire.run(0, 1, 2))
    wire.clock.at(0.15, end.close)
    wire.until_over()

    assert wire.came == []
    assert wire.left == [0b11]
