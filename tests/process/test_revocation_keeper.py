"""Revocations of one daemon: from files, from its tracker, and after a restart."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process.ca import Ca, new_ca
from p2pdist.process.files import mark_of
from p2pdist.process.revocation_keeper import RevocationKeeper, revocation_keeper
from p2pdist.process.revocation_lists import LIST_NAME, read_list, revoke, write_list
from p2pdist.process.revoked_hosts import sign_revocation
from p2pdist.settings import Host, Peer, Settings, Tracker

CA, OTHER = new_ca(1e9), new_ca(1e9)
CAS = [CA.certificate.public_bytes(Encoding.DER)]
A, B, C = (HostId(letter * 32) for letter in "abc")


def record(*hosts: HostId, ca: Ca = CA) -> bytes:
    return sign_revocation(ca, hosts, 1e9)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "state" / LIST_NAME


def said(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    found = [one for one in caplog.records if one.getMessage() == "hosts.revoked"]
    return [one.__dict__["fields"] for one in found]


def keeper(tmp_path: Path, kept: Path | None) -> RevocationKeeper:
    found = RevocationKeeper([tmp_path / LIST_NAME], kept)
    found.load(CAS)
    return found


async def test_a_list_that_is_put_there_is_read_and_kept(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = keeper(tmp_path, kept)
    told: list[int] = []
    own.on_more.append(lambda: told.append(len(own.hosts)))
    assert not await own.look(CAS)
    revoke(tmp_path, CA, [A], 1e9)

    assert await own.look(CAS)
    assert not await own.look(CAS)

    assert told == [1]
    assert A in own.hosts
    assert said(caplog) == [{"hosts": A, "more": 0}]
    (tmp_path / LIST_NAME).unlink()
    assert not await own.look(CAS)
    assert A in own.hosts
    assert A in keeper(tmp_path, kept).hosts, "after a restart, without the list"


async def test_what_a_tracker_tells_is_kept(tmp_path: Path, kept: Path) -> None:
    own = keeper(tmp_path, kept)
    assert await own.hear([record(A), record(B)], CAS)
    assert not await own.hear([record(A, ca=OTHER)], CAS)
    again = keeper(tmp_path, kept)
    assert set(again.hosts.since) == {A, B}
    assert await again.hear([record(C)], CAS)
    assert set(keeper(tmp_path, kept).hosts.since) == {A, B, C}


async def test_a_tracker_that_knows_less_makes_nobody_forget(tmp_path: Path, kept: Path) -> None:
    own = keeper(tmp_path, kept)
    await own.hear([record(A)], CAS)
    assert not await own.hear([], CAS)
    assert A in own.hosts


async def test_a_damaged_list_is_said_and_the_others_count(
    tmp_path: Path, kept: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / LIST_NAME).write_text("nothing of ours\n")
    own = keeper(tmp_path, kept)
    assert "line 1 is no record" in own.trouble
    assert "revocations.unread" in caplog.text
    await own.hear([record(A)], CAS)
    assert A in own.hosts

    (tmp_path / LIST_NAME).unlink()
    revoke(tmp_path, CA, [B], 1e9)
    assert await own.look(CAS)
    assert (own.trouble, own.hosts.trouble) == ("", "")
    assert B in own.hosts


async def test_a_forged_record_is_said_until_the_list_is_another(tmp_path: Path) -> None:
    own = keeper(tmp_path, None)
    write_list(tmp_path / LIST_NAME, [record(A, ca=Ca(CA.certificate, OTHER.key))])
    assert not await own.look(CAS)
    assert "does not hold" in own.hosts.trouble
    write_list(tmp_path / LIST_NAME, [record(A)])
    assert await own.look(CAS)
    assert own.hosts.trouble == ""


async def test_a_host_that_cannot_write_knows_them_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state").write_text("a file, no directory")
    own = keeper(tmp_path, tmp_path / "state" / LIST_NAME)
    assert await own.hear([record(A)], CAS)
    assert A in own.hosts
    for _ in range(3):
        assert not await own.look(CAS)
    assert caplog.text.count("revocations.unkept") == 1

    (tmp_path / "state").unlink()
    assert not await own.look(CAS)
    assert A in keeper(tmp_path, tmp_path / "state" / LIST_NAME).hosts


async def test_what_was_there_at_the_start_is_kept_as_well(tmp_path: Path, kept: Path) -> None:
    revoke(tmp_path, CA, [A], 1e9)
    own = keeper(tmp_path, kept)
    assert A in own.hosts
    assert mark_of(kept) is None, "`doctor` loads, too"

    assert not await own.look(CAS)
    (tmp_path / LIST_NAME).unlink()

    assert A in keeper(tmp_path, kept).hosts
    before = mark_of(kept)
    assert not await own.look(CAS)
    assert mark_of(kept) == before, "once"


async def test_what_connects_a_host_is_cut_before_anything_is_written(
    tmp_path: Path, kept: Path
) -> None:
    """A disk may take its time."""
    own = keeper(tmp_path, kept)
    found: list[bool] = []
    own.on_more.append(lambda: found.append(mark_of(kept) is not None))
    await own.hear([record(A)], CAS)
    assert found == [False]
    assert mark_of(kept) is not None


async def test_many_are_named_in_few_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = keeper(tmp_path, None)
    with caplog.at_level(logging.WARNING):
        await own.hear([record(*(HostId(f"{n:032x}") for n in range(100)))], CAS)
    (fields,) = said(caplog)
    assert (len(fields["hosts"].split(", ")), fields["more"]) == (8, 92)


@pytest.mark.parametrize("role", ["peer", "tracker"])
async def test_where_the_lists_of_a_daemon_lie(tmp_path: Path, role: str) -> None:
    """Its own directory; at a tracker that signs, beside the CA's key as well."""
    places = {name: tmp_path / name for name in ("identity", "ca")}
    for place, host in zip(places.values(), (A, B), strict=True):
        place.mkdir()
        revoke(place, CA, [host], 1e9)
    settings = Settings(
        host=replace(Host(), state_dir=tmp_path / "state"),
        tracker=replace(Tracker(), identity_dir=places["identity"], ca_dir=places["ca"]),
        peer=replace(Peer(), identity_dir=places["identity"]),
    )
    own = revocation_keeper(settings, Role(role))
    assert await own.look(CAS)

    assert set(own.hosts.since) == ({A} if role == "peer" else {A, B})
    assert len(read_list(tmp_path / "state" / role / LIST_NAME)) == len(own.hosts)
