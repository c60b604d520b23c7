"""Counts of reads in a file: others see them, and the next process goes on with them."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from p2pdist.model.durations import DURATION_BOUNDS_S, bucket_of
from p2pdist.streaming.core.policy import Why
from p2pdist.streaming.read_counts import (
    FILE_NAME,
    Outcome,
    ReadCounts,
    counts_in,
    read_counts,
)


class Clock:
    now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_others_see_what_is_counted_at_once(tmp_path: Path) -> None:
    counts = counts_in(tmp_path)
    counts.fetched(Why.AHEAD, 7)
    counts.fetched(Why.DEMAND, 1 << 40)
    counts.read(12, Outcome.WAITED)
    with counts.waiting():
        seen = read_counts(tmp_path / FILE_NAME)

    assert seen is not None
    assert seen.fetched_bytes == (1 << 40, 7, 0)
    assert (seen.read_bytes, seen.outcomes, seen.waiting) == (12, (0, 1, 0), 1)
    assert read_counts(tmp_path / FILE_NAME) == counts.reads()


def _count_and_die(directory: Path) -> None:
    counts = counts_in(directory)
    counts.read(5, Outcome.KEPT)
    with counts.waiting():
        counts.age()
        os.kill(os.getpid(), signal.SIGKILL)


def test_the_next_process_goes_on_after_kill_9(tmp_path: Path) -> None:
    for _ in range(2):
        process = multiprocessing.get_context("spawn").Process(
            target=_count_and_die, args=(tmp_path,)
        )
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    seen = read_counts(tmp_path / FILE_NAME)
    assert seen is not None
    assert (seen.read_bytes, seen.waiting) == (10, 1)

    assert counts_in(tmp_path).reads().waiting == 0, "who waited is no more"


def test_a_wait_is_counted_by_how_long_it_was(tmp_path: Path) -> None:
    clock = Clock()
    counts = ReadCounts(clock=clock)
    with counts.waiting():
        clock.now_s += 0.05
    with counts.waiting():
        clock.now_s += 0.75
        counts.age()
        assert counts.reads().oldest_s == 0.75
    counts.age()

    seen = counts.reads()
    assert seen.oldest_s == 0
    assert seen.waited_s == pytest.approx(0.8)
    assert seen.waits[bucket_of(0.05)] == seen.waits[bucket_of(0.75)] == 1
    assert sum(seen.waits) == 2
    assert len(seen.waits) == len(DURATION_BOUNDS_S) + 1


@pytest.mark.parametrize("content", [b"", b"of another version", bytes(8 * 64)])
def test_a_file_of_another_layout_is_begun_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    assert read_counts(tmp_path / FILE_NAME) is None

    counts_in(tmp_path).read(3, Outcome.FAILED)

    seen = read_counts(tmp_path / FILE_NAME)
    assert seen is not None
    assert seen.read_bytes == 3


def test_of_no_mount_there_are_no_counts(tmp_path: Path) -> None:
    assert read_counts(tmp_path / FILE_NAME) is None


def test_a_mount_does_not_fail_for_its_counts(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).mkdir()

    counts = counts_in(tmp_path)
    counts.read(3, Outcome.KEPT)

    assert counts.reads().read_bytes == 3
