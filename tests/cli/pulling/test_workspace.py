"""Where blobs lie on their way: gone in the end, and what a kill left goes with the next pull."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pdist.cli.pulling.workspace import PREFIX, naming, sweep, workspace
from tests.faults.records import recorded

BLOB = "ab" * 32


def left(place: Path, name: str = "left", blob: str = BLOB) -> Path:
    """What a killed pull leaves behind."""
    directory = place / f"{PREFIX}{name}"
    directory.mkdir()
    (directory / blob).write_bytes(b"part of a layer")
    return directory


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    with workspace(tmp_path) as directory:
        (directory / BLOB).write_bytes(b"x")
        assert directory.parent == tmp_path

    assert list(tmp_path.iterdir()) == []


@pytest.mark.faults
def test_what_a_kill_left_is_taken_away_by_the_next_pull(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        "from p2pdist.cli.pulling.workspace import workspace\n"
        "with workspace(pathlib.Path(sys.argv[1])) as directory:\n"
        f"    (directory / '{BLOB}').write_bytes(b'x')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=30)
    (killed,) = tmp_path.iterdir()

    with recorded(88, "a pull that is killed", "kill -9") as record:
        with workspace(tmp_path) as directory:
            assert list(tmp_path.iterdir()) == [directory]

        assert not killed.exists()
        record.outcome = "what it left goes with the next pull beside the same target"


def test_what_belongs_to_a_pull_that_goes_on_stays(tmp_path: Path) -> None:
    with workspace(tmp_path) as first, workspace(tmp_path) as second:
        sweep(tmp_path)

        assert {first, second} == set(tmp_path.iterdir())


def strange_file(place: Path) -> Path:
    return left(place, blob="thesis.tex")


def strange_directory(place: Path) -> Path:
    directory = left(place)
    (directory / ("cd" * 32)).mkdir()
    return directory


def strange_name(place: Path) -> Path:
    return left(place).rename(place / "mine")


def link(place: Path) -> Path:
    target = strange_name(place)
    (place / f"{PREFIX}link").symlink_to(target)
    return target


@pytest.mark.parametrize("made", [strange_file, strange_directory, strange_name, link])
def test_what_no_pull_made_is_left_alone(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    directory = made(tmp_path)

    sweep(tmp_path)

    assert directory.is_dir()


def test_what_another_user_put_there_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = left(tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    sweep(tmp_path)

    assert (directory / BLOB).exists()


def test_a_directory_that_is_swept_before_it_has_its_lock_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def swept(**options: object) -> str:
        made.append(make(**options))  # type: ignore[call-overload]  # as they were given
        if len(made) == 1:
            sweep(tmp_path)
        return str(made[-1])

    monkeypatch.setattr(tempfile, "mkdtemp", swept)

    with workspace(tmp_path) as directory:
        assert str(directory) == made[1]
        assert list(tmp_path.iterdir()) == [directory]


def test_a_file_system_without_locks_is_swept_of_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(fd: int, operation: int) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr(fcntl, "flock", no_locks)

    with workspace(tmp_path) as first, workspace(tmp_path) as second:
        assert {first, second} == set(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_disk_names_the_place_and_not_the_file_of_chance(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / f"{PREFIX}x" / BLOB))

    with pytest.raises(OSError, match="No space left") as caught, naming(tmp_path):
        raise full

    assert caught.value.filename == str(tmp_path)
