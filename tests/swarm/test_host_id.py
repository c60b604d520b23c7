from __future__ import annotations

import logging
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.ids import parse_host_id
from p2pdist.swarm.host_id import RENEW_PAUSE_S, OwnId, machine_mark

HERE, THERE = "1" * 32, "2" * 32


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Warnings: the event and why."""
    warnings = [r for r in caplog.records if r.levelno == logging.WARNING]
    return [(r.getMessage(), str(r.__dict__["fields"].get("why"))) for r in warnings]


def test_the_id_of_the_first_start_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = OwnId.load(tmp_path / "new" / "state", HERE).current

    assert parse_host_id(first) == first
    assert OwnId.load(tmp_path / "new" / "state", HERE).current == first
    assert said(caplog) == []
    assert (tmp_path / "new" / "state" / "host_id").stat().st_mode & 0o077 == 0


def test_a_state_directory_of_another_machine_is_given_a_new_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = OwnId.load(tmp_path, HERE).current

    moved = OwnId.load(tmp_path, THERE).current

    assert moved != first
    assert OwnId.load(tmp_path, THERE).current == moved
    assert said(caplog) == [("host.new_id", "the state directory comes from another machine")]


def test_an_id_of_before_is_bound_to_the_machine_that_uses_it(tmp_path: Path) -> None:
    (tmp_path / "host_id").write_text("ab" * 16 + "\n")

    assert OwnId.load(tmp_path, HERE).current == "ab" * 16
    assert OwnId.load(tmp_path, HERE).current == "ab" * 16
    assert OwnId.load(tmp_path, THERE).current != "ab" * 16


def test_where_machines_have_no_id_nothing_is_bound(tmp_path: Path) -> None:
    """Containers: whatever says that it is elsewhere says it by being somewhere."""
    unbound = OwnId.load(tmp_path, "").current
    assert OwnId.load(tmp_path, "").current == unbound
    assert OwnId.load(tmp_path, HERE).current == unbound

    assert OwnId.load(tmp_path, "").current == unbound, "it does not tell that it is elsewhere"
    assert OwnId.load(tmp_path, HERE).current == unbound


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * 33, b"ab" * 8, b"AB" * 16, b"ab" * 16 + b"\nhere\n", b"\xff" * 33, b"a" * 9999],
)
def test_a_damaged_file_is_replaced_by_a_new_id(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    """After a power cut a file may be empty or zeros."""
    (tmp_path / "host_id").write_bytes(data)

    fresh = OwnId.load(tmp_path, HERE).current

    assert OwnId.load(tmp_path, HERE).current == fresh
    assert said(caplog) == [("host.new_id", "the file was damaged")]


def test_what_cannot_be_read_is_the_operators(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("ab" * 16)
    (tmp_path / "host_id").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(ConfigError, match="host_id: "):
        OwnId.load(tmp_path, HERE)


def test_an_id_that_another_host_has_is_given_up_and_stays_given_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnId.load(tmp_path, HERE)
    shared = own.current

    keep = own.renew(5.0, "in use at 10.0.0.9")

    fresh = own.current
    assert keep is not None
    keep()
    assert shared != fresh == OwnId.load(tmp_path, HERE).current
    assert said(caplog) == [
        ("host.new_id", "another host has the same host id: in use at 10.0.0.9")
    ]


def test_an_id_is_given_up_once_a_minute_at_most(tmp_path: Path) -> None:
    """Whoever says it of a fresh id is wrong, or another word about the one before was late."""
    own = OwnId.load(tmp_path, HERE)
    own.renew(5.0, "here")
    fresh = own.current

    assert own.renew(5.0 + RENEW_PAUSE_S - 0.1, "there") is None
    assert (own.current, own.renewed_total) == (fresh, 1)
    assert own.renew(5.0 + RENEW_PAUSE_S, "there") is not None
    assert (own.current != fresh, own.renewed_total) == (True, 2)


def test_an_id_that_cannot_be_kept_is_used_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = OwnId.load(tmp_path / "state", HERE)
    keep = own.renew(0.0, "here")
    (tmp_path / "state" / "host_id").unlink()
    (tmp_path / "state").rmdir()
    (tmp_path / "state").write_text("no directory")

    assert keep is not None
    keep()

    assert said(caplog)[1:] == [("host.id_not_kept", "None")]


def test_a_machine_is_told_by_its_machine_id_alone(tmp_path: Path) -> None:
    path = tmp_path / "machine-id"
    assert machine_mark(path) == ""
    for nothing in ("", "\n", "uninitialized\n", "0" * 31, "\u00e9" * 32):
        path.write_text(nothing)
        assert machine_mark(path) == "", nothing

    marks = set()
    for machine_id in (HERE, THERE):
        path.write_text(f"{machine_id}\n")
        mark = machine_mark(path)
        assert machine_id not in mark
        assert parse_host_id(mark) == mark == machine_mark(path)
        marks.add(mark)
    assert len(marks) == 2
