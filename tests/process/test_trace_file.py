"""The file of a trace takes lines without a wait, for its owner alone, up to a size."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path

import msgspec
import pytest

from p2pdist.errors import ConfigError
from p2pdist.process.trace_file import TraceFile
from p2pdist.swarm.core.trace_lines import Line

HOST = "a" * 32


def test_lines_are_added_behind_those_of_earlier_runs(tmp_path: Path) -> None:
    for text in (b"one\n", b"two\n"):
        file = TraceFile(tmp_path / "trace", HOST)
        file.write(text)
        file.close()

    assert (tmp_path / "trace").read_bytes() == b"one\ntwo\n"
    assert (tmp_path / "trace").stat().st_mode & 0o777 == 0o600
    assert "trace" not in {thread.name for thread in threading.enumerate()}


def test_what_comes_after_the_end_is_dropped(tmp_path: Path) -> None:
    file = TraceFile(tmp_path / "trace", HOST)
    file.close()
    file.write(b"late\n")

    assert (tmp_path / "trace").read_bytes() == b""


def test_a_full_file_takes_no_more_and_the_log_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trace").write_bytes(b"before\n")
    file = TraceFile(tmp_path / "trace", HOST, file_bytes_max=12)
    with caplog.at_level(logging.WARNING):
        for text in (b"one\n", b"two\n", b"6\n"):
            file.write(text)
    file.close()

    assert (tmp_path / "trace").read_bytes() == b"before\none\n"
    assert [record.getMessage() for record in caplog.records] == ["trace.full"]


def test_a_disk_that_is_too_slow_costs_lines_and_a_line_says_how_many(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slow")
    reading = os.open(tmp_path / "slow", os.O_RDONLY | os.O_NONBLOCK)
    file = TraceFile(tmp_path / "slow", HOST)
    line = b"x" * 99_999 + b"\n"
    for _ in range(200):  # 20 MB; nobody reads
        file.write(line)
    os.set_blocking(reading, True)
    ended = threading.Thread(target=file.close)
    ended.start()
    found = b""
    while part := os.read(reading, 1 << 20):
        found += part
    ended.join()
    os.close(reading)

    (said,) = [text for text in found.split(b"\n") if b"left_out" in text]
    told = msgspec.json.decode(said, type=Line)
    assert told.host == HOST
    assert told.left_out == 200 - found.count(line[:-1])


@pytest.mark.parametrize("where", ["missing/trace", "."], ids=["no directory", "a directory"])
def test_what_cannot_be_written_is_a_wrong_setting(tmp_path: Path, where: str) -> None:
    with pytest.raises(ConfigError, match=r"peer\.trace_file: ") as wrong:
        TraceFile(tmp_path / where, HOST, setting="peer.trace_file")

    assert "directory that is there" in wrong.value.hint


def test_nothing_is_followed_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "trace").symlink_to(tmp_path / "other")

    with pytest.raises(ConfigError):
        TraceFile(tmp_path / "trace", HOST)
    assert not (tmp_path / "other").exists()


def test_a_disk_that_hangs_keeps_its_descriptor_until_it_has_taken_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number would be that of the next file, which got what still waited."""
    monkeypatch.setattr("p2pdist.process.log_writer.STALLED_S", 0.05)
    os.mkfifo(tmp_path / "hung")
    reading = os.open(tmp_path / "hung", os.O_RDONLY | os.O_NONBLOCK)
    file = TraceFile(tmp_path / "hung", HOST)
    line = b"x" * 99_999 + b"\n"
    for _ in range(3):
        file.write(line)

    file.close()

    os.set_blocking(reading, True)
    found = b""
    while len(found) < 3 * len(line):
        part = os.read(reading, 1 << 20)
        assert part, "closed under the one who writes"
        found += part
    os.close(reading)
    assert found == 3 * line
