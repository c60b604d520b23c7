"""`p2pdist proxy`, `tracker`, `peer` and `snapshotter`: one daemon each."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import config_option, setting_flags
from p2pdist.cli.starting import naming_addresses, started

COMMON = ("cluster", "host", "log")


@click.command()
@config_option
@setting_flags("proxy", "store", *COMMON, aliases={"proxy.trace_file": "--trace"})
def proxy(config: Path | None, **flags: Any) -> None:
    """Run the registry proxy of a datacenter.

    It reads each blob once from its registry, signs chunk maps and seeds the swarm. Registries are
    listed as [[upstream]] tables in the configuration file; Docker Hub is there by default.

    \b
    Example:
      p2pdist proxy --proxy-listen 0.0.0.0:5100 --proxy-exchange-listen 0.0.0.0:5101 \\
        --proxy-trackers tcp://10.0.0.2:5200
    """
    from p2pdist.process.daemon import run_daemon
    from p2pdist.registry_proxy.daemon import run

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
    from p2pdist.process.daemon import run_daemon
    from p2pdist.tracker.daemon import run

    settings = started("tracker", config, flags)
    with naming_addresses(settings, "tracker"):
        run_daemon(lambda stop: run(settings, stop), on_uvloop=True)


@click.command()
@config_option
@setting_flags("peer", "store", *COMMON, aliases={"peer.trace_file": "--trace"})
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
    from p2pdist.process.daemon import run_daemon

    settings = started("peer", config, flags)
    with naming_addresses(settings, "peer"):
        run_daemon(lambda stop: run(settings, stop))


@click.command()
@config_option
@setting_flags("snapshotter", "host", "log")
def snapshotter(config: Path | None, **flags: Any) -> None:
    """Run the snapshotter of a host: containers of containerd start before their layers are here.

    What a container reads is fetched then, from near peers, and checked. Images that the proxy has
    not indexed are pulled as ever. Files stay while this daemon, the peer or containerd restart.
    Root only; Linux 6.9 or later for containers that survive the process that reads for them.

    \b
    For containerd, in /etc/containerd/config.toml:
      [proxy_plugins.p2pdist]
        type = "snapshot"
        address = "/run/p2pdist/snapshotter.sock"
      [plugins."io.containerd.grpc.v1.cri".containerd]
        snapshotter = "p2pdist"
    """
    from p2pdist.process.daemon import run_daemon
    from p2pdist.streaming.fuse.mounting import CannotMount
    from p2pdist.streaming.snapshotter.daemon import run

    if os.geteuid() != 0:
        raise CommandError("only root can mount", Exit.USAGE, "run it with sudo, or as a service")
    settings = started("snapshotter", config, flags)
    try:
        run_daemon(lambda stop: run(settings, stop))
    except CannotMount as error:
        raise CommandError(str(error), Exit.USAGE) from None
