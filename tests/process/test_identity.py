from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from p2pdist.process.identity import proxy_keys, read_secret, read_signer
from p2pdist.process.keys import find_or_make_keys, make_keys
from p2pdist.settings import Cluster, Settings


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


@pytest.mark.parametrize("name", ["cluster.secret", "proxy.key"])
@pytest.mark.parametrize("left", [b"", bytes(65)])
def test_keys_that_a_power_cut_emptied_are_named_and_not_made_anew(
    tmp_path: Path, name: str, left: bytes
) -> None:
    """Sixty-five zeros would be a secret that is long enough."""
    make_keys(tmp_path)
    (tmp_path / name).write_bytes(left)
    read = read_secret if name == "cluster.secret" else read_signer

    with pytest.raises(ConfigError, match=rf"{name} lost its bytes; copy it"):
        read(tmp_path / name)
    with pytest.raises(ConfigError):
        make_keys(tmp_path)
    assert (tmp_path / name).read_bytes() == left


def test_keys_are_on_the_disk_when_they_are_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced, fsync = [], os.fsync

    def on_fsync(fd: int) -> None:
        synced.append(os.fstat(fd).st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", on_fsync)
    keys = make_keys(tmp_path)

    assert {keys.secret_file.stat().st_size, keys.key_file.stat().st_size} < set(synced)


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


def with_keys_file(path: Path, *keys: str) -> Settings:
    return Settings(cluster=Cluster(None, keys, proxy_keys_file=path))


def test_the_public_key_that_was_made_is_read_from_its_file(tmp_path: Path) -> None:
    keys = make_keys(tmp_path)

    assert proxy_keys(with_keys_file(tmp_path / "proxy.pub")) == [
        read_signer(keys.key_file).public_key_bytes
    ]


def test_keys_of_the_settings_and_of_the_file_are_believed(tmp_path: Path) -> None:
    old, new = make_keys(tmp_path / "old").public_key, make_keys(tmp_path / "new").public_key
    path = tmp_path / "both.pub"
    path.write_text(f"# since May\n{new}\n\n  {old}\n")

    found = proxy_keys(with_keys_file(path, old))

    assert [base64.b64encode(raw).decode() for raw in found] == [old, new, old]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "holds no key"),
        ("# nothing yet\n", "holds no key"),
        ("short\n", "'short' is no base64 of 32 bytes"),
        ("k\u00e9y\n", "is no base64 of 32 bytes"),
        ("A" * 20_000, "larger than 16384 bytes"),
    ],
)
def test_a_file_without_good_keys_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "proxy.pub"
    path.write_text(text)

    with pytest.raises(ConfigError, match=rf"cluster\.proxy_keys_file: .*{fault}"):
        proxy_keys(with_keys_file(path))


def test_a_file_of_keys_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"proxy\.pub: No such file"):
        proxy_keys(with_keys_file(tmp_path / "proxy.pub"))


def test_a_file_of_keys_that_others_may_change_names_the_fix(tmp_path: Path) -> None:
    make_keys(tmp_path)
    (tmp_path / "proxy.pub").chmod(0o664)

    with pytest.raises(ConfigError, match=r"chmod go-w .*proxy\.pub"):
        proxy_keys(with_keys_file(tmp_path / "proxy.pub"))


def test_keys_are_not_made_beside_a_public_key_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "proxy.pub").write_text("of another cluster")

    with pytest.raises(ConfigError, match=r"proxy\.pub exists already"):
        make_keys(tmp_path)
    assert not (tmp_path / "cluster.secret").exists()
