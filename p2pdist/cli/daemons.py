"""`p2pdist proxy`, `tracker` and `peer`: one daemon each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from p2pdist.cli.options import config_option, setting_flags
from p2pdist.cli.starting import naming_addresses, started

COMMON = ("cluster", "host", "log")


@click.command()
@config_option
@setting_flags("proxy", "store", *COMMON)
def proxy(config: Path | None, **flags: Any) -> None:
    """Run the registry proxy of a datacenter.

    It reads each blob once from its registry, signs chunk maps and seeds the swarm. Registries are
    listed as [[upstream]] tables in the configuration file; Docker Hub is there by default.

    \b
    Example:
      p2pdist proxy --proxy-listen 0.0.0.0:5100 --proxy-exchange-listen 0.0.0.0:5101 \\
        --proxy-trackers tcp://10.0.0.2:5200
    """
    from p2pdist.registry_proxy.daemon import run
    from p2pdist.runtime.daemon import run_daemon

    settings = started("proxy", config, flags)
    with naming_addresses(settings, "proxy"):
        run_daemon(lambda stop: run(settings, stop))


@click.command()
@config_option
@setting_flags("tracker", *COMMON)
def tracker(config: Path | None, **flags: Any) -> None:
    """Run the tracker of a datacenter.

    It knows who holds what and names near neighbours. Transfers go on without it.

    \b
    Example:
      p2pdist tracker --tracker-listen 0.0.0.0:5200
    """
    from p2pdist.runtime.daemon import run_daemon
    from p2pdist.tracker.daemon import run

    settings = started("tracker", config, flags)
    with naming_addresses(settings, "tracker"):
        run_daemon(lambda stop: run(settings, stop), on_uvloop=True)


@click.command()
@config_option
@setting_flags("peer", "store", *COMMON)
def peer(config: Path | None, **flags: Any) -> None:
    """Run the peer of a host: the mirror that its runtime pulls from.

    \b
    Example:
      p2pdist peer --peer-exchange-listen 0.0.0.0:5301 \\
        --peer-trackers tcp://10.0.0.2:5200 --peer-proxies http://10.0.0.1:5100
    Then, for Docker, in /etc/docker/daemon.json:
      {"registry-mirrors": ["http://127.0.0.1:5300"]}
    """
    from p2pdist.peer.daemon import run
    from p2pdist.runtime.daemon import run_daemon

    settings = started("peer", config, flags)
    with naming_addresses(settings, "peer"):
        run_daemon(lambda stop: run(settings, stop))
