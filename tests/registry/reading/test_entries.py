"""The registries to read, as the settings have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.registry.reading.entries import by_caller, upstream_entries, upstream_hosts
from p2pdist.settings import Settings, Upstream


def test_a_peer_never_reads_an_upstreams_password(tmp_path: Path) -> None:
    private = Upstream("private.example", username="me", password_file=tmp_path / "missing")
    settings = Settings(upstream=(Upstream("docker.io"), private))

    assert [e.host for e in upstream_entries(settings, with_secrets=False)] == ["docker.io"]
    with pytest.raises(ConfigError, match=r"private.example: .*missing: No such file"):
        upstream_entries(settings, with_secrets=True)


async def test_a_password_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter22\n")
    path.chmod(0o600)
    private = Upstream("private.example", username="me", password_file=path)

    (entry,) = upstream_entries(Settings(upstream=(private,)), with_secrets=True)

    assert entry.credentials is not None
    assert await entry.credentials.account() == ("me", "hunter22")
    assert "hunter22" not in repr(entry)


def test_two_tables_for_one_registry_are_refused() -> None:
    twice = (Upstream(host="docker.io"), Upstream(host="registry-1.docker.io"))
    with pytest.raises(ConfigError, match=r"two .* tables for one registry"):
        upstream_hosts(Settings(upstream=twice))
    with pytest.raises(ConfigError, match=r"two .* tables for one registry"):
        upstream_entries(Settings(upstream=twice), with_secrets=False)


def test_two_accounts_for_one_registry_are_refused(tmp_path: Path) -> None:
    both = Upstream(host="docker.io", username="me", auth_file=tmp_path / "auth.json")
    with pytest.raises(ConfigError, match="username and auth_file name two accounts"):
        upstream_entries(Settings(upstream=(both,)), with_secrets=True)


def test_a_registry_that_decides_by_its_callers_has_no_account(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o600)
    own = Upstream("r.test", access="passthrough", username="me", password_file=path)
    with pytest.raises(ConfigError, match="credentials of each caller"):
        upstream_entries(Settings(upstream=(own,)), with_secrets=True)

    settings = Settings(upstream=(Upstream("r.test", access="passthrough"), Upstream("docker.io")))
    (entry, _) = upstream_entries(settings, with_secrets=True)
    assert not entry.servable
    assert by_caller(settings) == {"r.test"}
