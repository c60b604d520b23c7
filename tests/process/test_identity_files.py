"""A renewed certificate is in place as a whole, or not at all, wherever the process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process import clock
from p2pdist.process.ca import new_ca
from p2pdist.process.host_identity import read_identity
from p2pdist.process.identity_files import newest_in, put_in_place, tidy
from tests.process.identities import TestCa

ID = HostId("a" * 32)
REPLACE = """
import sys
from pathlib import Path
from p2pdist.process.identity_files import put_in_place
old, new = Path(sys.argv[1]), Path(sys.argv[2])
ca, cert, key = ((new / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
ca = None if sys.argv[3:] else ca
put_in_place(old, ca=ca, cert=cert, key=key, check=lambda place: None)
"""
KEEP = "keep"
"""What is in `ca.pem`."""
WRITES = range(1, 7)
"""Of three files to the new set, and of three to their places; two of each with `KEEP`."""


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def ends_s(directory: Path) -> float:
    return read_identity(directory, Role.PEER).says.ends_s


def killed_at(plan: str, old: Path, new: Path, *flags: str) -> int:
    env = {**os.environ, "P2PDIST_FAILPOINTS": "1", "P2PDIST_FAIL": plan}
    return subprocess.run([sys.executable, "-c", REPLACE, old, new, *flags], env=env).returncode


@pytest.mark.parametrize(
    "plan",
    [
        *(f"files.{step}=kill@{n}" for step in ("before_rename", "after_rename") for n in WRITES),
        "identity.before_next=kill",
        *(f"identity.before_file=kill@{n}" for n in (1, 2, 3)),
        "identity.before_removal=kill",
        *(
            f"files.{step}=kill@{n} keep"
            for step in ("before_rename", "after_rename")
            for n in (2, 4)
        ),
        *(f"identity.before_file=kill@{n} keep" for n in (1, 2, 3)),
    ],
)
def test_a_kill_leaves_the_old_set_or_the_new_one(ca: TestCa, plan: str) -> None:
    plan, *flags = plan.split()
    old, new = ca.directory("peer", ID, begun_days=20), ca.directory("peer", ID)
    before_s, after_s = ends_s(old), ends_s(new)

    assert killed_at(plan, old, new, *flags) == -9

    found_s = ends_s(old)
    assert found_s in (before_s, after_s)
    tidy(old)
    assert ends_s(old) == found_s
    assert newest_in(old) == old
    assert killed_at("", old, new) == 0
    assert ends_s(old) == after_s
    assert {path.name for path in old.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    assert not (old / "ca.pem").is_symlink()
    assert (old / "key.pem").stat().st_mode & 0o777 == 0o600


def test_what_others_are_about_to_put_there_is_left_alone(ca: TestCa) -> None:
    """Of `p2pdist ca issue` into the directory of a daemon that runs, or of an editor."""
    old, new = ca.directory("peer", ID, begun_days=20), ca.directory("peer", ID)
    theirs = {old / "cert.pem.0123abcd.new", old / "ca.pem.new"}
    for path in theirs:
        path.write_bytes(b"half of it")

    files = {name: (new / f"{name}.pem").read_bytes() for name in ("ca", "cert", "key")}
    put_in_place(old, **files, check=lambda place: None)
    tidy(old)

    assert ends_s(old) == ends_s(new)
    assert all(path.exists() for path in theirs)


def test_a_ca_that_somebody_puts_there_in_the_middle_of_it_stays(ca: TestCa) -> None:
    old, new = ca.directory("peer", ID, begun_days=20), ca.directory("peer", ID)
    theirs = ca.ca.pem + new_ca(clock.unix_s()).pem

    def meanwhile(place: Path) -> None:
        read_identity(place, Role.PEER)
        (old / "ca.pem").write_bytes(theirs)

    cert, key = ((new / f"{name}.pem").read_bytes() for name in ("cert", "key"))
    put_in_place(old, ca=None, cert=cert, key=key, check=meanwhile)

    assert ends_s(old) == ends_s(new)
    assert (old / "ca.pem").read_bytes() == theirs


def test_what_is_no_good_changes_nothing(ca: TestCa) -> None:
    old = ca.directory("peer", ID)
    before_s = ends_s(old)

    def refuse(place: Path) -> None:
        assert (place / "key.pem").stat().st_mode & 0o777 == 0o600
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        put_in_place(old, ca=b"x", cert=b"x", key=b"x", check=refuse)
    assert ends_s(old) == before_s
    assert {path.name for path in old.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
