"""Pins: by job, until the last of them is over, through a restart and through nonsense on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.store import pins as pins_module
from p2pdist.store.pins import Pins

ONE, TWO = digest_of(b"1"), digest_of(b"2")


@pytest.fixture
def pins(tmp_path: Path) -> Pins:
    return Pins(tmp_path / "pins")


def test_a_blob_of_two_jobs_is_pinned_until_the_last_is_over(pins: Pins) -> None:
    pins.put("a", [ONE], 100.0)
    pins.put("b", [ONE, TWO], 200.0)

    assert pins.pinned(ONE, 150.0)
    pins.drop("b")
    assert pins.pinned(ONE, 99.0)
    assert not pins.pinned(ONE, 100.0)
    assert not pins.pinned(TWO, 0.0)


def test_a_job_that_pins_again_pins_only_that(pins: Pins) -> None:
    pins.put("a", [ONE], 100.0)
    pins.put("a", [TWO], 50.0)

    assert pins.digests(0.0) == [TWO]


def test_what_is_over_goes(pins: Pins) -> None:
    pins.put("a", [ONE], 100.0)
    pins.put("b", [TWO], 200.0)
    pins.expire(100.0)

    assert pins.digests(0.0) == [TWO]


def test_pins_outlive_a_restart(pins: Pins, tmp_path: Path) -> None:
    pins.put("a", [ONE, TWO], 100.0)
    pins.save()
    again = Pins(tmp_path / "pins")
    again.load()

    assert set(again.digests(0.0)) == {ONE, TWO}


@pytest.mark.parametrize("junk", [b"", b"\xff", b"\x81\xa1a\xc0", b"\x93\x01\x02", b"\x00" * 99])
def test_a_file_that_makes_no_sense_is_as_none(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "pins").write_bytes(junk)
    pins = Pins(tmp_path / "pins")
    pins.load()

    assert pins.digests(0.0) == []


def test_there_is_an_end_to_pins(pins: Pins, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pins_module, "PINS_MAX", 3)
    digests = [Digest(digest_of(bytes([number]))) for number in range(3)]
    pins.put("a", digests, 100.0)
    pins.put("b", [ONE], 100.0)
    pins.put("a", digests[:2], 100.0)  # its own count as given back

    assert set(pins.digests(0.0)) == set(digests[:2])
