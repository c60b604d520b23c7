"""What a start reads: recorded, and passed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.traces import BODY_BYTES_MAX, decode_trace, encode_trace
from p2pdist.streaming.core.policy import TRACE_UNIT_BYTES
from p2pdist.streaming.core.tar import SIZE_MAX_BYTES
from p2pdist.streaming.snapshotter.layer_files import PLAN, TRACE, LayerPlan
from p2pdist.streaming.snapshotter.mirror import MirrorFault
from p2pdist.streaming.snapshotter.traces import RECORD_S, Recorder
from p2pdist.streaming.snapshotter.tracing import Tracing, is_news
from tests.e2e.harness.processes import wait_until

LAYER = digest_of(b"layer")


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_start_is_recorded_in_the_order_of_its_first_reads(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(tmp_path / TRACE, clock)
    recorder.read(5 * TRACE_UNIT_BYTES, 5 * TRACE_UNIT_BYTES + 1)
    recorder.read(10, 2 * TRACE_UNIT_BYTES)
    recorder.read(5 * TRACE_UNIT_BYTES + 7, 6 * TRACE_UNIT_BYTES + 1)
    recorder.end()
    assert not (tmp_path / TRACE).exists(), "it goes on"

    clock.now_s += RECORD_S
    recorder.end()
    recorder.read(9 * TRACE_UNIT_BYTES, 9 * TRACE_UNIT_BYTES + 1)
    recorder.end()

    assert decode_trace((tmp_path / TRACE).read_bytes()) == [5, 0, 1, 6]


def test_of_a_layer_that_nobody_reads_there_is_no_trace(tmp_path: Path, clock: Clock) -> None:
    recorder = Recorder(tmp_path / TRACE, clock)
    clock.now_s += 2 * RECORD_S

    recorder.end()

    assert not (tmp_path / TRACE).exists()


def test_a_start_that_reads_everything_has_a_trace_of_bounded_length(
    tmp_path: Path, clock: Clock
) -> None:
    recorder = Recorder(tmp_path / TRACE, clock)
    recorder.read(0, 5000 * TRACE_UNIT_BYTES)
    clock.now_s += RECORD_S

    recorder.end()

    assert len(decode_trace((tmp_path / TRACE).read_bytes())) == TRACE_UNITS_MAX


def test_of_the_longest_archive_there_is_the_trace_can_be_told(
    tmp_path: Path, clock: Clock
) -> None:
    """Whatever an index says of where its files lie."""
    recorder = Recorder(tmp_path / TRACE, clock)
    recorder.read(SIZE_MAX_BYTES - 600 * TRACE_UNIT_BYTES, SIZE_MAX_BYTES)
    clock.now_s += RECORD_S

    recorder.end()

    body = (tmp_path / TRACE).read_bytes()
    assert len(body) < BODY_BYTES_MAX
    units = decode_trace(body)
    assert len(units) == TRACE_UNITS_MAX
    assert units[0] == SIZE_MAX_BYTES // TRACE_UNIT_BYTES - 600


def test_a_layer_that_is_gone_has_no_trace(tmp_path: Path, clock: Clock) -> None:
    """Nor a directory: it would be taken for a layer that is damaged."""
    recorder = Recorder(tmp_path / "gone" / TRACE, clock)
    recorder.read(0, 1)
    clock.now_s += RECORD_S

    recorder.end()

    assert not (tmp_path / "gone").exists()


# --- passed on ------------------------------------------------------------------------------------


class ToldMirror:
    def __init__(self) -> None:
        self.told: asyncio.Queue[tuple[Digest, list[int]]] = asyncio.Queue()
        self.faults = 0

    async def tell_trace(self, layer: Digest, units: list[int]) -> None:
        if self.faults:
            self.faults -= 1
            raise MirrorFault("away")
        self.told.put_nowait((layer, units))


class Place:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mirror = ToldMirror()
        self.tracing = Tracing(
            self.mirror,  # type: ignore[arg-type]  # what is used of one
            lambda: list(self.directory.iterdir()),
            look_s=0.01,
        )

    def layer(self, number: int, trace: bytes, expected: list[int] | None = None) -> Path:
        path = self.directory / str(number)
        path.mkdir()
        plan = LayerPlan(
            "docker.io", "library/app", LAYER, [], whole=False, expected=expected or []
        )
        (path / PLAN).write_bytes(msgspec.json.encode(plan))
        (path / TRACE).write_bytes(trace)
        return path / TRACE

    async def told(self) -> tuple[Digest, list[int]]:
        async with asyncio.timeout(20):
            return await self.mirror.told.get()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path)
    running = asyncio.get_running_loop().create_task(made.tracing.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def gone(path: Path) -> None:
    await asyncio.to_thread(wait_until, lambda: not path.exists(), f"end of {path}")


async def test_a_trace_is_told_once(place: Place) -> None:
    first = place.layer(1, encode_trace([3, 1]))
    assert await place.told() == (LAYER, [3, 1])

    place.layer(2, encode_trace([9]))

    assert await place.told() == (LAYER, [9])
    await gone(first)


async def test_a_trace_is_told_when_the_mirror_is_back(place: Place) -> None:
    place.mirror.faults = 3
    place.layer(1, encode_trace([3, 1]))

    assert await place.told() == (LAYER, [3, 1])


async def test_what_all_know_nobody_tells(place: Place) -> None:
    known = place.layer(1, encode_trace([1, 2]), expected=[2, 1, 7])
    place.layer(2, encode_trace([5]))

    assert await place.told() == (LAYER, [5])
    await gone(known)


async def test_a_damaged_trace_is_thrown_away(place: Place) -> None:
    damaged = place.layer(1, b"no trace")
    place.layer(2, encode_trace([5]))

    assert await place.told() == (LAYER, [5])
    await gone(damaged)


def test_news_is_what_a_tenth_of_a_trace_is() -> None:
    assert is_news([1], [])
    assert not is_news([], [])
    assert not is_news(list(range(100)), list(range(1, 100)))
    assert is_news(list(range(100)), list(range(10, 100)))
