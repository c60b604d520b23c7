"""Lines go to a pipe that perhaps nobody reads, in their order, and hold up nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from p2pdist.process.log_writer import LineStream, LineWriter
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

PIPE_BYTES = 64 << 10
LINE = b"x" * 999 + b"\n"


def said(lines: int) -> bytes:
    return b"dropped %d\n" % lines


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(writing)


def drain(reading: int, until: bytes) -> bytes:
    found = b""
    while until not in found:
        part = os.read(reading, 1 << 20)
        assert part, found[-200:]
        found += part
    return found


def test_lines_keep_their_order(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], said)

    for number in range(1000):
        writer.put(b"%d\n" % number)

    assert writer.flush()
    assert drain(pipe[0], b"999\n").split() == [b"%d" % n for n in range(1000)]
    assert writer.dropped_total == 0
    os.close(pipe[0])


def test_what_nobody_reads_is_bounded_counted_and_said_when_somebody_does(
    pipe: tuple[int, int],
) -> None:
    writer = LineWriter(pipe[1], said, queue_bytes_max=50 * len(LINE))
    put = 0
    while writer.flush(stalled_s=0.05):
        writer.put(LINE)
        put += 1
    for _ in range(1000):
        writer.put(LINE)

    assert put <= PIPE_BYTES // len(LINE) + 1
    assert writer.dropped_total >= 1000 - 50
    kept, dropped = put + 1000 - writer.dropped_total, writer.dropped_total
    assert drain(pipe[0], said(dropped)) == kept * LINE + said(dropped)
    writer.put(b"after\n")
    assert drain(pipe[0], b"after\n") == b"after\n"
    os.close(pipe[0])


def test_what_was_dropped_is_said_in_its_place(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], said, queue_bytes_max=4 * len(LINE))
    while not writer.dropped_total:
        writer.put(LINE)
    dropped = writer.dropped_total

    found = drain(pipe[0], said(dropped))
    writer.put(b"after\n")
    found += drain(pipe[0], b"after\n")

    assert found.endswith(LINE + said(dropped) + b"after\n")
    os.close(pipe[0])


def test_a_reader_that_has_gone_is_outlived(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], said)
    os.close(pipe[0])

    for _ in range(3):
        writer.put(LINE)

    assert writer.flush()
    assert writer.dropped_total == 3


def test_a_pipe_that_somebody_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    os.set_blocking(pipe[1], False)
    writer = LineWriter(pipe[1], said)
    for _ in range(200):
        writer.put(LINE)
    writer.put(b"last\n")

    assert drain(pipe[0], b"last\n") == 200 * LINE + b"last\n"
    os.close(pipe[0])


def test_what_is_printed_in_pieces_is_one_line(pipe: tuple[int, int]) -> None:
    writer = LineWriter(pipe[1], said)
    stream = LineStream(writer, pipe[1])

    print("a", "b", file=stream, end="")
    writer.put(b"between\n")
    print("c\nd", file=stream, end="", flush=True)

    writer.flush()
    assert os.read(pipe[0], 100) == b"between\na bc\nd"
    os.close(pipe[0])


# --- a daemon -------------------------------------------------------------------------------------


class Child:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert process.stdout is not None
        self._url = f"http://127.0.0.1:{int(process.stdout.readline())}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self._url + path, timeout=20) as answer:
            text: str = answer.read().decode()
        return text

    def dropped(self) -> int:
        page = self.get("/metrics").splitlines()
        return next(
            int(float(line.split()[1]))
            for line in page
            if line.startswith("p2pdist_log_lines_dropped_total ")
        )

    def lines(self) -> list[dict[str, Any]]:
        """Read stderr to its end."""
        assert self.process.stderr is not None
        return [json.loads(line) for line in self.process.stderr.read().splitlines()]


@contextmanager
def daemon() -> Iterator[Child]:
    """Its stderr is a pipe."""
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.process.unread"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
    ) as process:
        try:
            yield Child(process)
        finally:
            process.kill()


def test_a_daemon_whose_lines_nobody_reads_goes_on_and_ends() -> None:
    with recorded(55, "stderr that nobody reads", "3,000 lines of 1 kB") as record:
        with daemon() as child:
            child.get("/log?lines=3000")

            assert json.loads(child.get("/livez"))["alive"]
            child.get("/print")
            dropped = child.dropped()
            assert dropped > 0

            child.process.send_signal(signal.SIGTERM)
            assert child.process.wait(timeout=20) == 0
        record.outcome = f"alive, {dropped} lines dropped and counted, ends on SIGTERM"


def test_what_was_kept_and_how_much_was_not_is_read_afterwards() -> None:
    with daemon() as child:
        child.get("/log?lines=3000")
        dropped = child.dropped()
        assert child.process.stderr is not None

        found: list[dict[str, Any]] = []
        while not found or found[-1]["event"] != "log.dropped":
            found.append(json.loads(child.process.stderr.readline()))

        assert found[-1]["lines"] == dropped
        assert [line["number"] for line in found[:-1]] == list(range(3000 - dropped))


def test_what_is_logged_just_before_the_end_comes_out() -> None:
    with daemon() as child:
        child.get("/log?lines=500")
        child.process.send_signal(signal.SIGTERM)

        found = child.lines()

        assert [line["number"] for line in found if "number" in line] == list(range(500))
        assert found[-1]["event"] == "test.last"


def test_an_error_of_a_command_is_said_behind_what_it_logged() -> None:
    script = (
        "import logging, sys; from p2pdist.process import logs; logs.set_up('info', 'json')\n"
        "for n in range(300): logs.event(logging.getLogger('x'), logging.INFO, 'test.line', n=n)\n"
        "import click; click.echo('p2pdist: no', err=True); sys.exit(2)"
    )

    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, timeout=20)

    assert ended.returncode == 2
    lines = ended.stderr.decode().splitlines()
    assert [json.loads(line)["n"] for line in lines[:-1]] == list(range(300))
    assert lines[-1] == "p2pdist: no"
