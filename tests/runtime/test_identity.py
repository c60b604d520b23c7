from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.runtime.identity import proxy_keys, read_secret, read_signer, upstream_entries
from p2pdist.runtime.keys import find_or_make_keys, make_keys
from p2pdist.settings import Cluster, Settings, Upstream


def test_made_keys_are_read_and_fit_each_other(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)
    settings = Settings(cluster=Cluster(keys.secret_file, (keys.public_key,)))

    assert len(read_secret(keys.secret_file)) >= 16
    assert read_signer(keys.key_file).public_key_bytes == proxy_keys(settings)[0]
    assert find_or_make_keys(tmp_path) == keys


@pytest.mark.parametrize("name", ["cluster.secret", "proxy.key"])
def test_a_secret_that_others_may_read_names_the_fix(tmp_path: Path, name: str) -> None:
    make_keys(tmp_path)
    (tmp_path / name).chmod(0o644)
    read = read_secret if name == "cluster.secret" else read_signer

    with pytest.raises(ConfigError, match=r"chmod 600 .*" + name):
        read(tmp_path / name)


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("short\n")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="at least 16 bytes"):
        read_secret(path)


def test_what_is_no_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("no key at all")
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="no private key in PEM"):
        read_signer(path)


@pytest.mark.parametrize("text", ["short", "!!!", "AAAA"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no base64 of 32 bytes"):
        proxy_keys(Settings(cluster=Cluster(None, (text,))))


def test_a_peer_never_reads_an_upstreams_password(tmp_path: Path) -> None:
    private = Upstream("private.example", username="me", password_file=tmp_path / "missing")
    settings = replace(Settings(), upstream=(Upstream("docker.io"), private))

    assert [e.host for e in upstream_entries(settings, with_secrets=False)] == ["docker.io"]
    with pytest.raises(ConfigError, match=r"private.example: password_file"):
        upstream_entries(settings, with_secrets=True)


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("hunter22\n")
    path.chmod(0o600)
    private = Upstream("private.example", username="me", password_file=path)

    (entry,) = upstream_entries(Settings(upstream=(private,)), with_secrets=True)

    assert entry.password == "hunter22"
    assert "hunter22" not in repr(entry)
