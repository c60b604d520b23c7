"""A renewed certificate is in place as a whole, or not at all, wherever the process is killed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process.host_identity import read_identity
from p2pdist.process.identity_files import finish, newest_in, put_in_place
from tests.process.identities import TestCa

ID = HostId("a" * 32)
REPLACE = """
import sys
from pathlib import Path
from p2pdist.process.identity_files import put_in_place
old, new = Path(sys.argv[1]), Path(sys.argv[2])
ca, cert, key = ((new / name).read_bytes() for name in ("ca.pem", "cert.pem", "key.pem"))
put_in_place(old, ca=ca, cert=cert, key=key, check=lambda place: None)
"""
WRITES = range(1, 7)
"""Of three files to the new set, and of three to their places."""


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def ends_s(directory: Path) -> float:
    return read_identity(directory, Role.PEER).says.ends_s


def killed_at(plan: str, old: Path, new: Path) -> int:
    env = {**os.environ, "P2PDIST_FAILPOINTS": "1", "P2PDIST_FAIL": plan}
    return subprocess.run([sys.executable, "-c", REPLACE, old, new], env=env).returncode


@pytest.mark.parametrize(
    "plan",
    [
        *(f"files.{step}=kill@{n}" for step in ("before_rename", "after_rename") for n in WRITES),
        "identity.before_next=kill",
        *(f"identity.before_file=kill@{n}" for n in (1, 2, 3)),
        "identity.before_removal=kill",
    ],
)
def test_a_kill_leaves_the_old_set_or_the_new_one(ca: TestCa, plan: str) -> None:
    old, new = ca.directory("peer", ID, begun_days=20), ca.directory("peer", ID)
    before_s, after_s = ends_s(old), ends_s(new)

    assert killed_at(plan, old, new) == -9

    found_s = ends_s(old)
    assert found_s in (before_s, after_s)
    finish(old)
    assert ends_s(old) == found_s
    assert newest_in(old) == old
    assert killed_at("", old, new) == 0
    assert ends_s(old) == after_s
    assert {path.name for path in old.iterdir()} == {"ca.pem", "cert.pem", "key.pem"}
    assert (old / "key.pem").stat().st_mode & 0o777 == 0o600


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
