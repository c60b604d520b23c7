"""`p2pdist cluster init`: what it writes is what the next commands use."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.cluster import cluster, next_steps
from p2pdist.cli.verify import problems
from p2pdist.errors import ConfigError
from p2pdist.model.identity import IdentityRole
from p2pdist.model.members import Address, Role
from p2pdist.process.ca import issue_files, read_ca, show_file
from p2pdist.process.clock import unix_s
from p2pdist.process.host_identity import host_identity
from p2pdist.process.identity import proxy_keys, read_secret, read_signer
from p2pdist.settings import Settings
from p2pdist.settings_load import load_settings
from p2pdist.tracker.joining import join_address

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


def placed(directory: Path, *moves: tuple[str, str]) -> Settings:
    """The settings of a host where all lies as the command says; /var/lib is `directory`."""
    for source, target in moves:
        (directory / target).parent.mkdir(exist_ok=True)
        (directory / source).rename(directory / target)
    for file in (directory / "config.toml", *(directory / "conf.d").iterdir()):
        file.write_text(file.read_text().replace("/var/lib", str(directory)))
    return settings_in(directory)


def test_with_certificates_trackers_and_proxies_have_theirs_and_hosts_can_join(
    tmp_path: Path,
) -> None:
    made(tmp_path, "--certificates")
    settings = placed(
        tmp_path,
        ("tracker-10.0.0.2/identity", "p2pdist-tracker/identity"),
        ("tracker-10.0.0.2/conf.d/tracker.toml", "conf.d/tracker.toml"),
        ("ca", "p2pdist-tracker/ca"),
        ("proxy-fd00--3/identity", "p2pdist-proxy/identity"),
    )
    of_tracker = host_identity(settings, Role.TRACKER)
    of_proxy = host_identity(settings, Role.PROXY)
    assert settings.tracker.ca_dir is not None
    ca = read_ca(settings.tracker.ca_dir)
    issue_files(
        ca, tmp_path / "p2pdist-peer/identity", IdentityRole.PEER, None, days=1, now_s=unix_s()
    )

    assert settings.cluster.require_identity
    assert of_tracker is not None
    assert of_proxy is not None
    assert of_tracker.cas == of_proxy.cas
    assert join_address(settings) == Address("0.0.0.0", 5201)
    assert settings.tracker.join == "10.0.0.2:5201"
    assert problems(settings) == ([], [])


def test_made_again_certificates_are_for_the_same_hosts_and_the_ca_stays(tmp_path: Path) -> None:
    made(tmp_path, "--certificates")
    ca, first = (tmp_path / "ca/ca.pem").read_bytes(), certified(tmp_path)
    (tmp_path / "config.toml").unlink()
    (tmp_path / "conf.d" / "proxy.toml").unlink()
    made(tmp_path, "--certificates")

    assert (tmp_path / "ca/ca.pem").read_bytes() == ca
    assert certified(tmp_path) == first
    assert len(set(first)) == 3


def certified(directory: Path) -> list[str]:
    files = sorted(directory.glob("*/identity/cert.pem"))
    return [str(found.identity) for file in files for found in show_file(file)]


def test_keys_of_hosts_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    made(tmp_path, "--certificates")

    secret = [*tmp_path.glob("*/identity/key.pem"), tmp_path / "ca/ca.key"]
    assert {file.stat().st_mode & 0o777 for file in secret} == {0o600}
    assert len(secret) == 4


def test_without_them_nothing_is_made_or_required(tmp_path: Path) -> None:
    made(tmp_path)

    assert not (tmp_path / "ca").exists()
    assert not settings_in(tmp_path).cluster.require_identity
