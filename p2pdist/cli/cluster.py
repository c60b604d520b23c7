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
def init(
    trackers: Sequence[str],
    proxies: Sequence[str],
    registries: Sequence[str],
    dc: str,
    directory: Path,
) -> None:
    """Write keys and configuration for one datacenter; print what goes where.

    One configuration serves all roles: copy it with the cluster secret to every host. Keys that are
    there already stay as they are; a configuration that is there is not replaced.

    \b
    Example:
      p2pdist cluster init --tracker 10.0.0.2 --proxy 10.0.0.1 --proxy 10.0.0.3 --registry ghcr.io
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
    shared = shared_config(keys, trackers, proxies, registries, dc)
    write_whole(directory / CONFIG_NAME, shared.encode(), mode=0o644)
    write_whole(directory / PROXY_CONFIG_NAME, proxy_config(keys).encode(), mode=0o644)
    click.echo(printable_lines(next_steps(directory, trackers, proxies)))


def shared_config(
    keys: KeyFiles,
    trackers: Sequence[str],
    proxies: Sequence[str],
    registries: Sequence[str],
    dc: str,
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


def proxy_config(keys: KeyFiles) -> str:
    """What proxies have besides."""
    import tomlkit

    head = "# On proxies only, beside proxy.key: who has that key speaks for all proxies.\n\n"
    return head + tomlkit.dumps({"proxy": {"key_file": str(keys.key_file)}})


def next_steps(directory: Path, trackers: Sequence[str], proxies: Sequence[str]) -> str:
    """What to copy and what to run, in order."""
    from p2pdist.settings_load import DEFAULT_FILE

    config = directory / CONFIG_NAME
    given = "" if config == DEFAULT_FILE else f" --config {config}"
    return "\n".join(
        [
            f"in {directory}:",
            f"  every host   {CONFIG_NAME}, cluster.secret",
            f"  proxies too  {PROXY_CONFIG_NAME}, proxy.key",
            "",
            "then, in this order (or with the units of deploy/systemd):",
            f"  {', '.join(trackers)}: p2pdist tracker{given}",
            f"  {', '.join(proxies)}: p2pdist proxy{given}",
            f"  every host: p2pdist peer{given}",
            "",
            "on each of them:",
            f"  p2pdist doctor --role peer{given}",
            "  p2pdist runtime install --engine docker    # or containerd, podman, crio",
            "  p2pdist status                             # from where the last pulls came",
        ]
    )


def _check_host(host: str) -> None:
    from p2pdist.errors import ConfigError

    if not host or any(c in host for c in "/@ \t,") or host.count(":") == 1:
        raise ConfigError(f"{host!r}: give the name or address of a host alone, such as 10.0.0.2")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
