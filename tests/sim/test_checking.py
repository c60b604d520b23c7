"""A trace of a fleet holds; one in which a host did something wrong does not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sim import checking, replay
from bench.sim.checking import Checker, NoTrace
from bench.sim.fleet import Fleet
from bench.sim.scenario import Faults
from p2pdist.swarm.core import traced
from p2pdist.swarm.core.trace_lines import VERSION, Line
from tests.sim.test_fleet import SMALL

Lines = list[dict[str, Any]]
TROUBLED = msgspec.structs.replace(
    SMALL, faults=Faults(killed=0.2, slow=0.1, liars=0.3, tracker_killed_at_s=1.1)
)


@pytest.fixture(scope="module")
def lines() -> Lines:
    """Of a small fleet in which nothing goes wrong."""
    written: list[bytes] = []
    assert Fleet(SMALL, 1, write=written.append).run(end_s=60)
    return [json.loads(line) for line in written]


def checked(lines: Lines) -> Checker:
    checker = Checker()
    for line in lines:
        checker.take(msgspec.convert(line, Line))
    return checker


def changed(lines: Lines, what: str, nth: int, change: Callable[[dict[str, Any]], None]) -> Lines:
    """The same, but for the `nth` line that says `what`."""
    found = [number for number, line in enumerate(lines) if line["what"] == what]
    line = dict(lines[found[nth]])
    change(line)
    return [*lines[: found[nth]], line, *lines[found[nth] + 1 :]]


def without(lines: Lines, what: str, nth: int = 0) -> Lines:
    found = [number for number, line in enumerate(lines) if line["what"] == what]
    return lines[: found[nth]] + lines[found[nth] + 1 :]


def test_a_fleet_holds_and_all_that_it_got_is_told(lines: Lines) -> None:
    checker = checked(lines)

    assert checker.faults == []
    whole = [motion for motion in checker.motions if motion.whole_s is not None and motion.sources]
    assert len(whole) == 2 * 12
    assert {motion.sources.total() for motion in whole} == {64, 18}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_fleet_in_trouble_holds(seed: int) -> None:
    checker = Checker()
    decode = msgspec.json.Decoder(Line).decode

    assert Fleet(TROUBLED, seed, write=lambda line: checker.take(decode(line))).run(end_s=120)

    assert checker.faults == []
    assert sum(motion.wrong for motion in checker.motions) > 0


WRONG: dict[str, Callable[[Lines], Lines]] = {
    "asked for chunks that are here": lambda lines: [
        *lines,
        {**next(line for line in lines if line["what"] == "AskRun"), "t": 99.0, "request": 1 << 30},
    ],
    "asked for chunks whose hashes are not known": lambda lines: [
        line for line in lines if line["what"] != "map_grew"
    ],
    "asked under a map that is not followed": lambda lines: changed(
        lines, "AskRun", 3, lambda line: line.update(map="00")
    ),
    "asked on a link that is down": lambda lines: changed(
        lines, "AskRun", 3, lambda line: line.update(link=999_999)
    ),
    "asked for a blob that has failed": lambda lines: changed(
        lines, "map_followed", 2, lambda line: line.update(what="fail")
    ),
    "took back what was not asked for": lambda lines: changed(
        lines, "AskRun", 3, lambda line: line.update(what="TakeBack")
    ),
    "a chunk that was not asked for": lambda lines: changed(
        lines, "arrived", 3, lambda line: line.update(chunk=line.get("chunk", 0) + 1)
    ),
    "offered chunks that are not here": lambda lines: without(lines, "landed", 1),
    "told the tracker of more than is here": lambda lines: changed(
        lines, "NoteHeld", 3, lambda line: line.update(count=10_000)
    ),
    "told the tracker that it is whole": lambda lines: changed(
        lines, "NoteHeld", 3, lambda line: line.update(whole=True, count=1)
    ),
    "heard on a link that is down": lambda lines: without(lines, "link_up"),
    "it was up before": lambda lines: changed(
        lines, "hear", 0, lambda line: line.update(what="link_up")
    ),
    "it was in motion": lambda lines: changed(
        lines, "map_followed", 2, lambda line: line.update(what="take_up")
    ),
    "of a blob that is not in motion": lambda lines: without(lines, "take_up", 2),
    "left a swarm that it was not in": lambda lines: changed(
        lines, "JoinSwarm", 0, lambda line: line.update(what="LeaveSwarm")
    ),
    "bytes go out that are not here": lambda lines: without(lines, "landed", 60),
    "bytes go out in another order than they are read in": lambda lines: without(lines, "goes_out"),
    "bytes go out to a reader that is not there": lambda lines: without(lines, "reader_at"),
    "its last bytes go out before the seal": lambda lines: [
        line for line in lines if line["what"] != "map_sealed" and line.get("frame", "") != "Seal"
    ],
    "a reader left that was not there": lambda lines: changed(
        lines, "reader_left", 0, lambda line: line.update(reader=7)
    ),
    "its clock went back": lambda lines: changed(
        lines, "landed", 5, lambda line: line.update(t=-1.0)
    ),
    "chunks behind the end of the blob": lambda lines: changed(
        lines, "landed", 5, lambda line: line.update(runs=[(1 << 40, 1)])
    ),
}


@pytest.mark.parametrize("fault", WRONG)
def test_what_no_host_may_do_is_found(lines: Lines, fault: str) -> None:
    checker = checked(WRONG[fault](lines))

    assert any(fault in found for found in checker.faults)


CHUNK = 1 << 18


def of_one_blob(*lines: dict[str, Any]) -> Lines:
    """A host with three neighbours, a blob of four chunks and all hashes; then `lines`."""
    begun: Lines = [
        {"what": "began", "role": "peer", "dc": "dc1", "version": VERSION},
        *({"what": "link_up", "link": n, "peer": f"{n}" * 32} for n in (1, 2, 3)),
        {"what": "take_up", "blob": "b", "size_bytes": 4 << 18},
        {
            "what": "map_followed",
            "blob": "b",
            "map": "m",
            "count": 4,
            "runs": [(0, 4)],
            "size_bytes": 4 * CHUNK,
            "chunk_size_bytes": CHUNK,
        },
    ]
    return [{"t": 0.0, "host": "a" * 32, **line} for line in [*begun, *lines]]


def ask(number: int, first: int, count: int = 1) -> dict[str, Any]:
    """Of neighbour `number`, under that number."""
    where = {"blob": "b", "map": "m", "link": number, "request": number}
    return {"what": "AskRun", **where, "first": first, "count": count}


def test_two_may_be_asked_for_a_chunk_and_no_third_one() -> None:
    assert checked(of_one_blob(ask(1, 0), ask(2, 1), ask(3, 0, 2))).faults == []

    (fault,) = checked(of_one_blob(ask(1, 0), ask(2, 0), ask(3, 0))).faults

    assert "asked of a third host at a time" in fault


@pytest.mark.parametrize(
    ("ends", "faults"),
    [
        ({"what": "TakeBack", "link": 1, "request": 1}, 0),
        ({"what": "hear", "frame": "Refuse", "link": 1, "request": 1}, 0),
        ({"what": "hear", "frame": "Refuse", "link": 2, "request": 1}, 1),
        ({"what": "link_down", "link": 1}, 0),
        ({"what": "link_down", "link": 2}, 1),
        ({"what": "arrived", "blob": "b", "link": 1, "request": 1, "good": True}, 0),
    ],
)
def test_what_is_let_go_has_no_request_open(ends: dict[str, Any], faults: int) -> None:
    found = checked(of_one_blob(ask(1, 0), ends, {"what": "let_go", "blob": "b"})).faults

    assert len(found) == faults
    assert all("let go with requests open" in fault for fault in found)


def reader(what: str = "reader_at", start: int = 0, stop: int = 0) -> dict[str, Any]:
    """The one reader of the blob; `start` and `stop` are chunks."""
    return {"what": what, "blob": "b", "start": start * CHUNK, "stop": stop * CHUNK}


def out(start: int, stop: int) -> dict[str, Any]:
    return reader("goes_out", start, stop)


def landed(first: int, count: int) -> dict[str, Any]:
    return {"what": "landed", "blob": "b", "runs": [(first, count)]}


SEALED = {"what": "map_sealed", "blob": "b"}
SEAL_HEARD = {"what": "hear", "frame": "Seal", "map": "m"}


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ([landed(0, 2), out(0, 1), out(1, 2)], ""),
        ([landed(0, 2), out(0, 1), out(0, 2)], ""),
        ([landed(0, 3), out(0, 1), reader("reader_at", 2), out(2, 3)], ""),
        ([landed(0, 2), out(1, 2)], "in another order"),
        ([landed(0, 3), out(0, 1), out(2, 3)], "in another order"),
        ([landed(0, 2), out(0, 3)], "are not here"),
        ([landed(0, 1), landed(2, 1), out(0, 3)], "are not here"),
        ([landed(0, 2), {**landed(1, 1), "what": "lost"}, out(0, 2)], "are not here"),
        ([landed(0, 4), out(0, 4)], "before the seal"),
        ([landed(0, 4), out(0, 3), out(3, 4)], "before the seal"),
        ([landed(0, 4), SEALED, out(0, 4)], ""),
        ([landed(0, 4), SEAL_HEARD, out(0, 4)], ""),
        ([landed(0, 4), SEALED, out(0, 5)], "that the blob has not"),
        ([landed(0, 4), SEALED, out(0, 0)], "that the blob has not"),
        ([landed(0, 1), reader("reader_left"), out(0, 1)], "that is not there"),
        ([landed(0, 1), {"what": "fail", "blob": "b"}, out(0, 1)], "that has failed"),
        ([reader("reader_left"), reader("reader_left")], "left that was not there"),
        ([{"what": "readers_unsaid", "blob": "b"}], ""),
    ],
)
def test_readers_get_in_order_what_is_here_and_the_end_behind_the_seal(
    lines: Lines, fault: str
) -> None:
    found = checked(of_one_blob(reader(), *lines)).faults

    assert [fault in each for each in found] == ([True] if fault else [])


def test_all_that_goes_out_is_told(lines: Lines) -> None:
    went = [line["stop"] - line.get("start", 0) for line in lines if line["what"] == "goes_out"]

    assert sum(went) == 12 * SMALL.size_bytes


def test_what_readers_do_fills_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traced, "READER_LINES_MIN", 5)
    monkeypatch.setattr(traced, "READER_LINES_PER_CHUNK", 0)
    written: list[bytes] = []
    assert Fleet(SMALL, 1, write=written.append).run(end_s=60)

    lines = [json.loads(line) for line in written]
    said = Counter(line["what"] for line in lines)
    assert said["readers_unsaid"] == 2 * 12
    assert said["reader_at"] + said["goes_out"] + said["reader_left"] == 4 * 2 * 12
    assert checked(lines).faults == []


def test_no_blob_has_so_many_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "READERS_MAX", 3)
    many = [{**reader(), "reader": number} for number in range(4)]

    assert checked(of_one_blob(*many[:3])).faults == []
    with pytest.raises(NoTrace):
        checked(of_one_blob(*many))


def test_of_a_host_whose_lines_were_left_out_nothing_more_is_said(lines: Lines) -> None:
    host = next(line["host"] for line in lines if line["what"] == "landed")
    begin = max(n for n, line in enumerate(lines) if line["what"] == "began") + 1
    rest = [line for line in lines[begin:] if line["what"] != "landed"]
    gap = {"t": 0.0, "host": host, "what": "left_out", "left_out": 7}

    of_it = [line for line in rest if line["host"] == host]
    checker = checked([*lines[:begin], gap, *of_it])

    assert (checker.faults, checker.left_out) == ([], 7)


# --- files ----------------------------------------------------------------------------------------


def file_of(path: Path, lines: Lines) -> Path:
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    return path


def test_a_file_is_told(tmp_path: Path, lines: Lines, capsys: pytest.CaptureFixture[str]) -> None:
    file = file_of(tmp_path / "trace", lines)
    with file.open("ab") as more:
        more.write(b'{"t":')  # its daemon was killed here

    assert replay.main([str(file)]) == 0

    told = capsys.readouterr().out
    assert "of 13 hosts, 26 blobs" in told or "of 13 hosts, 24 blobs" in told
    assert "TARGET replay.faults 0 <= 0 ok" in told


def test_a_fault_is_told_with_its_line(
    tmp_path: Path, lines: Lines, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = WRONG["took back what was not asked for"](lines)

    assert replay.main([str(file_of(tmp_path / "trace", wrong))]) == 1

    told = capsys.readouterr().out
    assert ": took back what was not asked for" in told
    assert "short" in told


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"garbage\n", "line 1: "),
        (b'{"t":0,"host":"a","what":"landed"}\n', "line 1: nothing says when a began"),
        (b'{"t":0,"host":"a","what":"began","version":9}\n', "a trace of version 9"),
        (b"x" * (replay.LINE_BYTES_MAX + 1), "line 1 is too long"),
    ],
    ids=["garbage", "no beginning", "another version", "too long"],
)
def test_what_is_no_trace_is_refused(
    tmp_path: Path, data: bytes, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "trace").write_bytes(data)

    assert replay.main([str(tmp_path / "trace")]) == 2
    assert said in capsys.readouterr().err


def test_a_huge_blob_is_no_trace(lines: Lines) -> None:
    with pytest.raises(NoTrace):
        checked(changed(lines, "map_followed", 0, lambda line: line.update(count=1 << 50)))
