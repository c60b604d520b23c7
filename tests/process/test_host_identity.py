"""The identity of a daemon as its start reads it: every fault names the file and what mends it."""

from __future__ import annotations

import ssl
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError, PeerFault
from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process.host_identity import host_identity, identity_shown
from p2pdist.process.revoked_hosts import RevokedHosts
from p2pdist.settings import Cluster, Peer, Settings
from tests.process.identities import TestCa, kept

ID = HostId("a" * 32)


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def settings_of(directory: Path | None, *, required: bool = False) -> Settings:
    return Settings(
        cluster=Cluster(require_identity=required), peer=replace(Peer(), identity_dir=directory)
    )


def read(directory: Path) -> None:
    host_identity(settings_of(directory), Role.PEER)


def test_without_one_there_is_none_unless_it_is_required() -> None:
    assert host_identity(settings_of(None), Role.PEER) is None
    with pytest.raises(ConfigError, match=r"require_identity is set, but peer\.identity_dir"):
        host_identity(settings_of(None, required=True), Role.PEER)


def test_it_is_read_and_shown(ca: TestCa) -> None:
    settings = settings_of(ca.directory("peer", ID), required=True)

    own = host_identity(settings, Role.PEER)

    assert own is not None
    assert own.required
    assert own.identity.host_id == ID
    for context in (own.client, own.server):
        assert context.minimum_version == ssl.TLSVersion.TLSv1_3
        assert context.verify_mode == ssl.CERT_REQUIRED


def test_the_wrong_role_is_named(ca: TestCa) -> None:
    with pytest.raises(ConfigError, match=rf"peer\.identity_dir: .*is for proxy {ID}, not for a"):
        read(ca.directory("proxy", ID))


@pytest.mark.parametrize("name", ["ca.pem", "cert.pem", "key.pem"])
@pytest.mark.parametrize("left", [None, b"", b"none of it", b"x" * 100_000])
def test_files_that_cannot_be_read_are_named(ca: TestCa, name: str, left: bytes | None) -> None:
    path = ca.directory("peer", ID) / name
    if left is None:
        path.unlink()
    else:
        path.write_bytes(left)

    with pytest.raises(ConfigError) as failed:
        read(path.parent)
    assert name in str(failed.value)


def test_a_key_that_others_may_read_and_a_ca_that_others_may_change_name_the_fix(
    ca: TestCa,
) -> None:
    directory = ca.directory("peer", ID)
    (directory / "key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"chmod 600 .*key\.pem"):
        read(directory)
    (directory / "key.pem").chmod(0o600)
    (directory / "ca.pem").chmod(0o666)
    with pytest.raises(ConfigError, match=r"chmod go-w .*ca\.pem"):
        read(directory)


def test_files_of_two_certificates_or_two_cas_do_not_fit(ca: TestCa, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    one, two = ca.directory("peer", ID), ca.directory("peer", ID)
    (one / "key.pem").write_bytes((two / "key.pem").read_bytes())
    with pytest.raises(ConfigError, match=r"key\.pem is not the key of"):
        read(one)
    foreign = TestCa(tmp_path / "other").ca
    mixed = kept(tmp_path / "mixed", foreign, ca.issue("peer", ID))
    with pytest.raises(ConfigError, match="was not issued by a CA in"):
        read(mixed)


@pytest.mark.parametrize("der", [b"", b"\x30\x03\x02\x01\x01", bytes(5000)])
def test_what_another_end_shows_is_hostile(der: bytes) -> None:
    with pytest.raises(PeerFault, match="no certificate of ours"):
        identity_shown(der, RevokedHosts())


def test_a_ca_is_no_host(ca: TestCa) -> None:
    der = ssl.PEM_cert_to_DER_cert(ca.ca.pem.decode())
    with pytest.raises(PeerFault, match="of a CA"):
        identity_shown(der, RevokedHosts())
