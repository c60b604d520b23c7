"""`p2pdist cluster init`: what it writes is what the next commands use."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.cluster import cluster, next_steps
from p2pdist.cli.verify import problems
from p2pdist.errors import ConfigError
from p2pdist.process.identity import proxy_keys, read_secret, read_signer
from p2pdist.settings import Settings
from p2pdist.settings_load import load_settings

HOSTS = ["--tracker", "10.0.0.2", "--proxy", "10.0.0.1", "--proxy", "fd00::3"]


def made(directory: Path, *arguments: str) -> Result:
    return CliRunner().invoke(
        cluster, ["init", "--dir", str(directory), *HOSTS, *arguments], catch_exceptions=False
    )


def settings_in(directory: Path) -> Settings:
    return load_settings(directory / "config.toml", environ={}).settings


def test_every_role_starts_from_one_configuration(tmp_path: Path) -> None:
    made(tmp_path, "--dc", "east", "--registry", "ghcr.io", "--registry", "quay.io")

    settings = settings_in(tmp_path)

    assert problems(settings)[0] == []
    assert settings.peer.trackers == settings.proxy.trackers == ("tcp://10.0.0.2:5200",)
    assert settings.peer.proxies == ("http://10.0.0.1:5100", "http://[fd00::3]:5100")
    assert [upstream.host for upstream in settings.upstream] == ["ghcr.io", "quay.io"]
    assert settings.host.dc == "east"
    assert len(read_secret(settings.cluster.secret_file)) >= 16
    assert read_signer(settings.proxy.key_file).public_key_bytes in proxy_keys(settings)


def test_a_host_without_the_proxys_part_needs_no_key(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "conf.d" / "proxy.toml").unlink()
    (tmp_path / "proxy.key").unlink()

    settings = settings_in(tmp_path)

    assert problems(settings)[0] == []
    assert settings.proxy.key_file is None


def test_it_says_what_goes_where(tmp_path: Path) -> None:
    given = f"--config {tmp_path}/config.toml"

    assert made(tmp_path).output.splitlines() == [
        f"in {tmp_path}:",
        "  every host   config.toml, cluster.secret",
        "  proxies too  conf.d/proxy.toml, proxy.key",
        "",
        "then, in this order (or with the units of deploy/systemd):",
        f"  10.0.0.2: p2pdist tracker {given}",
        f"  10.0.0.1, fd00::3: p2pdist proxy {given}",
        f"  every host: p2pdist peer {given}",
        "",
        "on each of them:",
        f"  p2pdist doctor --role peer {given}",
        "  p2pdist runtime install --engine docker    # or containerd, podman, crio",
        "  p2pdist status                             # from where the last pulls came",
    ]


def test_in_its_usual_place_it_need_not_be_named() -> None:
    lines = next_steps(Path("/etc/p2pdist"), ["10.0.0.2"], ["10.0.0.1"]).splitlines()

    assert "  every host: p2pdist peer" in lines
    assert max(map(len, lines)) <= 80


def test_what_is_there_stays(tmp_path: Path) -> None:
    made(tmp_path)
    secret, config = (tmp_path / "cluster.secret").read_bytes(), tmp_path / "config.toml"

    with pytest.raises(ConfigError, match=r"config\.toml is there already and is not replaced"):
        made(tmp_path)
    config.unlink()
    (tmp_path / "conf.d" / "proxy.toml").unlink()
    made(tmp_path)

    assert (tmp_path / "cluster.secret").read_bytes() == secret
    assert config.exists()


@pytest.mark.parametrize("host", ["http://10.0.0.2", "10.0.0.2:5200", "a b", "", "a,b"])
def test_hosts_are_given_alone(tmp_path: Path, host: str) -> None:
    with pytest.raises(ConfigError, match="give the name or address of a host alone"):
        CliRunner().invoke(
            cluster,
            ["init", "--dir", str(tmp_path), "--tracker", host, "--proxy", "p"],
            catch_exceptions=False,
        )
    assert not list(tmp_path.iterdir())
