from __future__ import annotations

import resource
from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.doctor import local
from p2pdist.doctor.findings import Finding, Level
from p2pdist.model.members import Address, Role
from p2pdist.process.keys import make_keys
from p2pdist.settings import Cluster, Host, Proxy, Settings, StoreSection, Upstream


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Nothing wrong with it."""
    keys = make_keys(tmp_path / "keys")
    return Settings(
        cluster=Cluster(keys.secret_file, (keys.public_key,)),
        host=Host(tmp_path),
        proxy=Proxy(key_file=keys.key_file),
        store=StoreSection(max_bytes=1000),
    )


def levels(findings: list[Finding]) -> dict[str, Level]:
    return {finding.check: finding.level for finding in findings}


def test_a_good_configuration_passes(settings: Settings) -> None:
    found = [*local.check_keys(settings, "proxy"), *local.check_disk(settings, "proxy")]

    assert set(levels(found).values()) == {Level.PASS}


def test_a_secret_that_others_may_read_fails_with_the_command_that_mends_it(
    settings: Settings,
) -> None:
    assert settings.cluster.secret_file is not None
    settings.cluster.secret_file.chmod(0o644)

    (secret, *_) = local.check_keys(settings, "peer")

    assert secret.level is Level.FAIL
    assert "chmod 600" in secret.text


def test_a_signing_key_that_nobody_believes_fails(settings: Settings, tmp_path: Path) -> None:
    other = make_keys(tmp_path / "other")
    wrong = replace(settings, cluster=replace(settings.cluster, proxy_keys=(other.public_key,)))

    assert levels([*local.check_keys(wrong, "proxy")])["signing key"] is Level.FAIL


def test_without_keys_a_peer_believes_nothing(settings: Settings) -> None:
    bare = replace(settings, cluster=Cluster())

    found = levels([*local.check_keys(bare, "peer")])

    assert found["cluster secret"] is Level.FAIL
    assert found["proxy keys"] is Level.FAIL


def test_an_unreadable_password_of_a_registry_fails_at_the_proxy(settings: Settings) -> None:
    upstream = Upstream("r.test", username="u", password_file=Path("/nowhere"), access="shared")
    wrong = replace(settings, upstream=(upstream,))

    assert levels([*local.check_keys(wrong, "proxy")])["upstreams"] is Level.FAIL
    assert levels([*local.check_keys(wrong, "peer")])["upstreams"] is Level.PASS


def test_too_little_disk_is_said_with_what_would_fit(settings: Settings) -> None:
    tight = replace(settings, store=StoreSection(max_bytes=1 << 60))

    assert levels([*local.check_disk(tight, "peer")])["disk"] is Level.FAIL
    assert "disk" not in levels([*local.check_disk(tight, "tracker")])


def test_a_state_directory_that_others_may_write_is_doubtful(
    settings: Settings, tmp_path: Path
) -> None:
    tmp_path.chmod(0o777)

    assert levels([*local.check_disk(settings, "tracker")])["state"] is Level.WARN


@pytest.mark.parametrize(
    ("hard", "level"), [(64, Level.FAIL), (1024, Level.WARN), (100_000, Level.PASS)]
)
def test_descriptors(monkeypatch: pytest.MonkeyPatch, hard: int, level: Level) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (hard, hard))

    assert levels([*local.check_limits()])["descriptors"] is level


def test_ports_that_are_open_to_others_are_named(settings: Settings) -> None:
    everywhere = Address("0.0.0.0", 5309)
    closed = levels([*local.check_exposure(settings, "peer")])
    opened = replace(
        settings, peer=replace(settings.peer, admin_listen=everywhere, listen=everywhere)
    )

    assert set(closed.values()) == {Level.PASS}
    assert set(levels([*local.check_exposure(opened, "peer")]).values()) == {Level.WARN}
    assert local.check_mirror_exposure(settings).level is Level.PASS
    assert local.check_mirror_exposure(opened).level is Level.WARN


def test_private_registries_want_certificates_which_is_advice(settings: Settings) -> None:
    (found,) = local.check_private_layers(settings, Role.PEER, {"r.test", "a.test"})
    peer = replace(settings.peer, identity_dir=Path("/etc/p2pdist/identity"))
    certified = replace(settings, peer=peer)

    assert found.level is Level.WARN
    assert "private layers of a.test, r.test go to each host from a proxy" in found.text
    assert found.fix == "p2pdist ca issue --role peer --out DIR, then peer.identity_dir = DIR"
    assert list(local.check_private_layers(certified, Role.PEER, {"r.test"})) == []
    assert list(local.check_private_layers(settings, Role.PEER, ())) == []
