"""`p2pdist all-in-one`: tracker, proxy and peer in one process, with embedded defaults."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from p2pdist.cli.options import config_option, load_from_flags, setting_flags
from p2pdist.settings import SECTIONS, Settings

if TYPE_CHECKING:
    from p2pdist.model.members import Address

log = logging.getLogger(__name__)


@click.command("all-in-one")
@config_option
@setting_flags(*SECTIONS)
def all_in_one(config: Path | None, **flags: Any) -> None:
    """Run tracker, proxy and peer in one process, for one host or a first look.

    Makes the cluster secret and the proxy's key in the state directory at the first start. Other
    hosts can join: give their peers this host's tracker and proxy and copy the [cluster] lines.

    \b
    Example:
      p2pdist all-in-one --host-state-dir /var/lib/p2pdist
    Then, for Docker, in /etc/docker/daemon.json:
      {"registry-mirrors": ["http://127.0.0.1:5300"]}
    """
    from p2pdist.runtime import logs
    from p2pdist.runtime.daemon import run_daemon

    settings = with_keys(load_from_flags(config, flags).settings)
    logs.set_up(settings.log.level, settings.log.format, role="all-in-one")
    run_daemon(lambda stop: run(settings, stop))


def with_keys(settings: Settings) -> Settings:
    """Fill in secret and key where none are configured: made once, then found again."""
    from p2pdist.runtime.keys import find_or_make_keys

    cluster, proxy = settings.cluster, settings.proxy
    if cluster.secret_file is not None and proxy.key_file is not None:
        return settings
    keys = find_or_make_keys(settings.host.state_dir / "keys")
    return dataclasses.replace(
        settings,
        cluster=dataclasses.replace(
            cluster,
            secret_file=cluster.secret_file or keys.secret_file,
            proxy_keys=(*cluster.proxy_keys, keys.public_key),
        ),
        proxy=dataclasses.replace(proxy, key_file=proxy.key_file or keys.key_file),
    )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run all three until `stop`; each learns the addresses of those before it."""
    from p2pdist.peer.daemon import running_peer
    from p2pdist.registry_proxy.daemon import running_proxy
    from p2pdist.runtime import logs
    from p2pdist.runtime.daemon import notify
    from p2pdist.tracker.daemon import running_tracker

    async with running_tracker(settings) as tracker:
        trackers = (*settings.proxy.trackers, f"tcp://{_reachable(tracker.control)}")
        own = dataclasses.replace(settings.proxy, trackers=trackers)
        settings = dataclasses.replace(settings, proxy=own)
        async with running_proxy(settings) as proxy:
            proxies = (f"http://{_reachable(proxy.registry)}", *settings.peer.proxies)
            peer_settings = dataclasses.replace(settings.peer, trackers=trackers, proxies=proxies)
            settings = dataclasses.replace(settings, peer=peer_settings)
            async with running_peer(settings) as peer:
                mirror = f"http://{_reachable(peer.mirror)}"
                logs.event(log, logging.INFO, "all-in-one.ready", registry_mirror=mirror)
                notify("READY=1")
                await stop.wait()
                for daemon in (peer, proxy, tracker):
                    daemon.admin_server.draining = True


def _reachable(address: Address) -> Address:
    """An address to dial where a daemon listens on all of them."""
    from p2pdist.model.members import Address

    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    return Address(anywhere.get(address.host, address.host), address.port)
