"""A trace of a fleet holds; one in which a host did something wrong does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from bench.sim import replay
from bench.sim.checking import Checker, NoTrace
from bench.sim.fleet import Fleet
from bench.sim.scenario import Faults
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


def of_one_blob(*lines: dict[str, Any]) -> Lines:
    """A host with three neighbours, a blob of four chunks and all hashes; then `lines`."""
    begun: Lines = [
        {"what": "began", "role": "peer", "dc": "dc1", "version": VERSION},
        *({"what": "link_up", "link": n, "peer": f"{n}" * 32} for n in (1, 2, 3)),
        {"what": "take_up", "blob": "b", "size_bytes": 4 << 18},
        {"what": "map_followed", "blob": "b", "map": "m", "count": 4, "runs": [(0, 4)]},
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
