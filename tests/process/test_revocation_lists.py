"""Lists of revoked hosts in files: what a CA's owner writes, what daemons read."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.control import HOST_RECORDS_MAX
from p2pdist.model.ids import HostId
from p2pdist.process import revocation_lists as subject
from p2pdist.process.ca import new_ca
from p2pdist.process.revocation_lists import LIST_NAME, listed, read_list, revoke, write_list

CA = new_ca(1e9)
A, B, C = (HostId(letter * 32) for letter in "abc")


def test_hosts_are_added_once(tmp_path: Path) -> None:
    assert revoke(tmp_path, CA, [A, A], 1e9) == [A]
    assert revoke(tmp_path, CA, [A, B], 2e9) == [B]

    assert listed(tmp_path, CA).since == {A: 1_000_000_000, B: 2_000_000_000}
    assert len(read_list(tmp_path / LIST_NAME)) == 2
    assert (tmp_path / LIST_NAME).stat().st_mode & 0o777 == 0o644


def test_one_that_is_there_writes_nothing(tmp_path: Path) -> None:
    revoke(tmp_path, CA, [A], 1e9)
    before = (tmp_path / LIST_NAME).stat()
    assert revoke(tmp_path, CA, [A], 2e9) == []
    assert (tmp_path / LIST_NAME).stat() == before


def test_many_go_into_records_that_are_whole(tmp_path: Path) -> None:
    hosts = [HostId(f"{number:032x}") for number in range(300)]
    assert revoke(tmp_path, CA, hosts, 1e9) == hosts
    assert len(read_list(tmp_path / LIST_NAME)) == 3
    assert set(listed(tmp_path, CA).since) == set(hosts)


def test_too_many_are_refused_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject, "HOSTS_MAX", 2)
    revoke(tmp_path, CA, [A], 1e9)
    with pytest.raises(ConfigError, match="time for another CA"):
        revoke(tmp_path, CA, [B, C], 1e9)
    assert set(listed(tmp_path, CA).since) == {A}


def test_two_who_revoke_at_once_lose_nothing(tmp_path: Path) -> None:
    hosts = [HostId(f"{number:032x}") for number in range(8)]
    threads = [threading.Thread(target=revoke, args=(tmp_path, CA, [host], 1e9)) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(listed(tmp_path, CA).since) == set(hosts)


def test_a_file_that_is_not_there_is_an_empty_list(tmp_path: Path) -> None:
    assert read_list(tmp_path / LIST_NAME) == []
    assert listed(tmp_path, CA).since == {}


def test_lists_are_put_together_by_cat(tmp_path: Path) -> None:
    for name, host in (("one", A), ("two", B)):
        (tmp_path / name).mkdir()
        revoke(tmp_path / name, CA, [host], 1e9)
    texts = [(tmp_path / name / LIST_NAME).read_bytes() for name in ("one", "two")]
    (tmp_path / LIST_NAME).write_bytes(b"\n".join(texts))
    assert set(listed(tmp_path, CA).since) == {A, B}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"!!\n", "line 1 is no record"),
        (b"\nAAAA\nx\n", "line 3 is no record"),
        (b"A" * (2 << 20), "larger than"),
        (b"AAAA\n" * (HOST_RECORDS_MAX + 1), "more than 256 records"),
    ],
)
def test_what_is_no_list_is_said(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / LIST_NAME
    path.write_bytes(data)
    with pytest.raises(ValueError, match=says):
        read_list(path)
    with pytest.raises(ConfigError, match=says):
        revoke(tmp_path, CA, [A], 1e9)
    assert path.read_bytes() == data, "nothing of it is lost"


def test_what_another_ca_wrote_there_stays(tmp_path: Path) -> None:
    revoke(tmp_path, CA, [A], 1e9)
    other = new_ca(1e9)
    assert listed(tmp_path, other).since == {}
    revoke(tmp_path, other, [B], 1e9)
    assert set(listed(tmp_path, CA).since) == {A}
    assert set(listed(tmp_path, other).since) == {B}


def test_a_record_that_does_not_hold_stops_who_would_add(tmp_path: Path) -> None:
    write_list(tmp_path / LIST_NAME, [os.urandom(40)])
    with pytest.raises(ConfigError, match="malformed record"):
        listed(tmp_path, CA)
