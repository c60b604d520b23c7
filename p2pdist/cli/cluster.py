"""`p2pdist cluster`: the files that the hosts of a datacenter start from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

if TYPE_CHECKING:
    from p2pdist.process.keys import KeyFiles

CONFIG_NAME: Final = "config.toml"
PROXY_CONFIG_NAME: Final = "conf.d/proxy.toml"
TRACKER_CONFIG_NAME: Final = "conf.d/tracker.toml"
CA_NAME: Final = "ca"
JOIN_PORT: Final = 5201
# Daemons renew their certificates, so these have to lie where their units let them write.
IDENTITY_DIR: Final = "/var/lib/p2pdist-{}/identity"
TRACKERS_CA_DIR: Final = "/var/lib/p2pdist-tracker/ca"


@click.group()
def cluster() -> None:
    """Make the files that the hosts of a datacenter start from."""


@cluster.command("init")
@click.option(
    "--tracker",
    "trackers",
    required=True,
    multiple=True,
    metavar="HOST",
    help="Host that runs the tracker; give it again for a second one.",
)
@click.option(
    "--proxy",
    "proxies",
    required=True,
    multiple=True,
    metavar="HOST",
    help="Host that runs a registry proxy; give it again for each.",
)
@click.option(
    "--registry",
    "registries",
    multiple=True,
    metavar="HOST",
    default=("docker.io",),
    show_default=True,
    help="Registry to serve, such as ghcr.io; give it again for each.",
)
@click.option("--dc", default="dc1", show_default=True, help="Name of the datacenter.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/etc/p2pdist"),
    show_default=True,
    help="Where to put the files, and where hosts will have them.",
)
@click.option(
    "--certificates",
    is_flag=True,
    help="Also make a CA, and certificates for trackers and proxies; peers join with tokens.",
)
def init(
    trackers: Sequence[str],
    proxies: Sequence[str],
    registries: Sequence[str],
    dc: str,
    directory: Path,
    certificates: bool,
) -> None:
    """Write keys and configuration for one datacenter; print what goes where.

    One configuration serves all roles: copy it with the cluster secret to every host. Keys that are
    there already stay as they are; a configuration that is there is not replaced.

    Without --certificates whoever has the cluster secret is believed to be any host, nothing is
    encrypted, and layers of registries with access = "passthrough" do not go from host to host.
    With it each daemon shows who it is, and others are refused (cluster.require_identity): the
    certificates of trackers and proxies are made here, each peer gets its own by `p2pdist join`,
    and trackers renew all of them. For that the trackers have the CA: whoever takes one can be any
    host, so let them run nothing else.

    \b
    Examples:
      p2pdist cluster init --tracker 10.0.0.2 --proxy 10.0.0.1 --proxy 10.0.0.3 --registry ghcr.io
      p2pdist cluster init --tracker 10.0.0.2 --proxy 10.0.0.1 --certificates
    """
    from p2pdist.errors import ConfigError
    from p2pdist.process.files import write_whole
    from p2pdist.process.keys import find_or_make_keys
    from p2pdist.process.terminal import printable_lines

    for host in (*trackers, *proxies):
        _check_host(host)
    for name in (CONFIG_NAME, PROXY_CONFIG_NAME):
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} is there already and is not replaced")
    keys = find_or_make_keys(directory)
    if certificates:
        make_certificates(directory, trackers, proxies)
    shared = shared_config(keys, trackers, proxies, registries, dc, certificates=certificates)
    of_proxies = proxy_config(keys, certificates=certificates)
    write_whole(directory / CONFIG_NAME, shared.encode(), mode=0o644)
    write_whole(directory / PROXY_CONFIG_NAME, of_proxies.encode(), mode=0o644)
    said = next_steps(directory, trackers, proxies, certificates=certificates)
    click.echo(printable_lines(said))


def make_certificates(directory: Path, trackers: Sequence[str], proxies: Sequence[str]) -> None:
    """Write the CA, if there is none, and what each tracker and each proxy has of its own.

    What is there is for the same host: it keeps its host id and gets another certificate.
    """
    from p2pdist.model.identity import IdentityRole
    from p2pdist.process import ca, clock
    from p2pdist.process.files import write_whole
    from p2pdist.process.revocation_lists import listed

    now_s, place = clock.unix_s(), directory / CA_NAME
    if not (place / ca.CA_NAME).exists():
        ca.make_ca(place, now_s)
    made = ca.read_ca(place)
    revoked = listed(place, made).why
    each = [(IdentityRole.TRACKER, host) for host in trackers]
    each += [(IdentityRole.PROXY, host) for host in proxies]
    for role, host in each:
        own = directory / own_name(role.value, host)
        own.mkdir(mode=0o700, exist_ok=True)
        identity = own / "identity"
        ca.issue_files(made, identity, role, None, days=ca.DAYS, now_s=now_s, revoked=revoked)
        if role is IdentityRole.TRACKER:
            write_whole(own / TRACKER_CONFIG_NAME, tracker_config(host).encode(), mode=0o644)


def own_name(role: str, host: str) -> str:
    """The directory of what one host alone has; a colon in it would be a host to scp."""
    return f"{role}-{host.strip('[]').replace(':', '-')}"


def tracker_config(host: str) -> str:
    """What one tracker has besides, where hosts have certificates."""
    import tomlkit

    section = {
        "identity_dir": IDENTITY_DIR.format("tracker"),
        "ca_dir": TRACKERS_CA_DIR,
        "join": _join_place(host),
    }
    head = "# On this tracker only: tokens name it, and it signs the certificates of hosts.\n\n"
    return head + tomlkit.dumps({"tracker": section})


def _join_place(host: str) -> str:
    return f"{_in_url(host)}:{JOIN_PORT}"


def shared_config(
    keys: KeyFiles,
    trackers: Sequence[str],
    proxies: Sequence[str],
    registries: Sequence[str],
    dc: str,
    *,
    certificates: bool = False,
) -> str:
    """The configuration of every host: each role reads its own sections."""
    import tomlkit

    urls = [f"tcp://{_in_url(host)}:5200" for host in trackers]
    sections: dict[str, Any] = {
        "cluster": {"secret_file": str(keys.secret_file), "proxy_keys": [keys.public_key]},
        "host": {"dc": dc},
        "tracker": {"listen": "0.0.0.0:5200"},
        "proxy": {
            "listen": "0.0.0.0:5100",
            "exchange_listen": "0.0.0.0:5101",
            "trackers": urls,
        },
        "peer": peer_section(urls, [f"http://{_in_url(host)}:5100" for host in proxies]),
        "upstream": [{"host": host} for host in registries],
    }
    if certificates:
        sections["cluster"]["require_identity"] = True
        sections["peer"]["identity_dir"] = IDENTITY_DIR.format("peer")
    return (
        "# The same on every host of the datacenter: each daemon reads its own sections.\n"
        "# Further settings: p2pdist config init; docs/configuration.md\n\n"
    ) + tomlkit.dumps(sections)


def peer_section(trackers: Sequence[str], proxies: Sequence[str]) -> dict[str, Any]:
    """What a peer has to know, whose chunks other hosts may ask for; both are URLs."""
    return {
        "exchange_listen": "0.0.0.0:5301",
        "trackers": list(trackers),
        "proxies": list(proxies),
    }


def proxy_config(keys: KeyFiles, *, certificates: bool = False) -> str:
    """What proxies have besides."""
    import tomlkit

    section = {"key_file": str(keys.key_file)}
    if certificates:
        section["identity_dir"] = IDENTITY_DIR.format("proxy")
    head = "# On proxies only, beside proxy.key: who has that key speaks for all proxies.\n\n"
    return head + tomlkit.dumps({"proxy": section})


def next_steps(
    directory: Path,
    trackers: Sequence[str],
    proxies: Sequence[str],
    *,
    certificates: bool = False,
) -> str:
    """What to copy and what to run, in order."""
    from p2pdist.settings_load import DEFAULT_FILE

    config = directory / CONFIG_NAME
    given = "" if config == DEFAULT_FILE else f" --config {config}"
    own, join = list[str](), list[str]()
    if certificates:
        own = _own_steps(directory, trackers, proxies)
        kept = "" if config == DEFAULT_FILE else f" --dir {directory / CA_NAME}"
        join = [
            "  every host, with a token of its own, which is good for an hour, once:",
            f"    here:  p2pdist ca token{kept} --role peer --tracker {_join_place(trackers[0])}",
            f"    there: p2pdist join TOKEN --out {IDENTITY_DIR.format('peer')}",
        ]
    return "\n".join(
        [
            f"in {directory}:",
            f"  every host   {CONFIG_NAME}, cluster.secret",
            f"  proxies too  {PROXY_CONFIG_NAME}, proxy.key",
            *own,
            "",
            "then, in this order (or with the units of deploy/systemd):",
            f"  {', '.join(trackers)}: p2pdist tracker{given}",
            f"  {', '.join(proxies)}: p2pdist proxy{given}",
            *join,
            f"  every host: p2pdist peer{given}",
            "",
            "on each of them:",
            f"  p2pdist doctor --role peer{given}",
            "  p2pdist runtime install --engine docker    # or containerd, podman, crio",
            "  p2pdist status                             # from where the last pulls came",
        ]
    )


def _own_steps(directory: Path, trackers: Sequence[str], proxies: Sequence[str]) -> list[str]:
    """What one host alone gets, and where its daemon looks for it."""
    steps = ["", "certificates, for these hosts alone; keep a copy of ca elsewhere:"]
    for role, hosts in (("tracker", trackers), ("proxy", proxies)):
        state = Path(IDENTITY_DIR.format(role)).parent
        for host in hosts:
            name = own_name(role, host)
            also = f", {CA_NAME}" if role == "tracker" else ""
            steps.append(f"  {host}: {name}/identity{also} to {state}")
            if role == "tracker":
                where = (directory / TRACKER_CONFIG_NAME).parent
                steps.append(f"  {host}: {name}/{TRACKER_CONFIG_NAME} to {where}")
    return steps


def _check_host(host: str) -> None:
    from p2pdist.errors import ConfigError

    if not host or any(c in host for c in "/@ \t,") or host.count(":") == 1:
        raise ConfigError(f"{host!r}: give the name or address of a host alone, such as 10.0.0.2")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
