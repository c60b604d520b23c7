"""`p2pdist all-in-one`: a tracker, and a proxy that is its host's peer as well, in one process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from p2pdist.cli.cluster import peer_section
from p2pdist.cli.options import config_option, load_from_flags, setting_flags
from p2pdist.cli.starting import naming_addresses
from p2pdist.settings import SECTIONS, Settings

if TYPE_CHECKING:
    from p2pdist.model.members import Address

log = logging.getLogger(__name__)

JOIN_FILE: Final = "join.toml"


@click.command("all-in-one")
@config_option
@setting_flags(*SECTIONS)
def all_in_one(config: Path | None, **flags: Any) -> None:
    """Run tracker, proxy and peer in one process, for one host or a first look.

    Makes the cluster secret and the proxy's key in the state directory at the first start. The
    proxy is this host's peer as well, so that each layer is kept once: of a peer's settings only
    those of its mirror and of the runtime count.

    \b
    Example:
      p2pdist all-in-one --host-state-dir /var/lib/p2pdist
      p2pdist runtime install --engine docker

    Other hosts can join once tracker, proxy and their exchange listen for them; what their peers
    need is written to join.toml in the state directory then.

    \b
      p2pdist all-in-one --tracker-listen 0.0.0.0:5200 --proxy-listen 0.0.0.0:5100 \\
        --proxy-exchange-listen 0.0.0.0:5101
    """
    from p2pdist.process import logs
    from p2pdist.process.daemon import run_daemon

    settings = with_keys(load_from_flags(config, flags).settings)
    logs.set_up(settings.log.level, settings.log.format, role="all-in-one")
    with naming_addresses(settings, "tracker", "proxy", "peer"):
        run_daemon(lambda stop: run(settings, stop))


def with_keys(settings: Settings) -> Settings:
    """Fill in secret and key where none are configured: made once, then found again."""
    from p2pdist.process.keys import find_or_make_keys

    cluster, proxy = settings.cluster, settings.proxy
    if cluster.secret_file is not None and proxy.key_file is not None:
        return settings
    keys = find_or_make_keys(settings.host.state_dir / "keys")
    return replace(
        settings,
        cluster=replace(
            cluster,
            secret_file=cluster.secret_file or keys.secret_file,
            proxy_keys=(*cluster.proxy_keys, keys.public_key),
        ),
        proxy=replace(proxy, key_file=proxy.key_file or keys.key_file),
    )


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run all three until `stop`, then drain."""
    from p2pdist.process import logs
    from p2pdist.process.daemon import notify
    from p2pdist.process.files import write_whole
    from p2pdist.registry_proxy.daemon import running_proxy
    from p2pdist.tracker.daemon import running_tracker

    async with running_tracker(settings) as tracker:
        trackers = (*settings.proxy.trackers, f"tcp://{_reachable(tracker.control)}")
        own = replace(settings.proxy, trackers=trackers)
        settings = replace(settings, proxy=own)
        async with running_proxy(settings, with_mirror=True) as proxy:
            assert proxy.mirror is not None
            addresses = proxy.running.me().addresses
            join = join_file(settings, addresses, tracker.control.port, proxy.registry.port)
            path = None if join is None else settings.host.state_dir / JOIN_FILE
            if path is not None and join is not None:
                await asyncio.to_thread(write_whole, path, join.encode(), durable=False)
            logs.event(
                log,
                logging.INFO,
                "all-in-one.ready",
                registry_mirror=f"http://{_reachable(proxy.mirror.address)}",
                join=str(path) if path is not None else "none: it listens for this host alone",
            )
            notify("READY=1")
            await stop.wait()
            tracker.admin_server.draining = True
            await proxy.drain()


def join_file(
    settings: Settings, addresses: Sequence[Address], tracker_port: int, proxy_port: int
) -> str | None:
    """Return a configuration for the peers of other hosts; None where they cannot reach this one.

    `addresses`: those of the proxy's exchange, as others are told.
    """
    import tomlkit

    listeners = (
        settings.tracker.listen,
        settings.proxy.listen,
        settings.proxy.exchange_listen,
    )
    if any(_is_loopback(address) for address in listeners) or not addresses:
        return None
    host = addresses[0]
    own = {
        "cluster": {
            "secret_file": "/etc/p2pdist/cluster.secret",
            "proxy_keys": list(settings.cluster.proxy_keys),
        },
        "peer": peer_section(
            [f"tcp://{_at(host, tracker_port)}"], [f"http://{_at(host, proxy_port)}"]
        ),
    }
    head = (
        "# For a host that joins: put this to /etc/p2pdist/config.toml there, a copy of\n"
        f"# {settings.cluster.secret_file}\n"
        "# to /etc/p2pdist/cluster.secret (mode 600), and run `p2pdist peer`.\n\n"
    )
    return head + tomlkit.dumps(own)


def _at(address: Address, port: int) -> Address:
    return type(address)(address.host, port)


def _is_loopback(address: Address) -> bool:
    try:
        return ip_address(address.host).is_loopback
    except ValueError:
        return address.host == "localhost"


def _reachable(address: Address) -> Address:
    """An address to dial where a daemon listens on all of them."""
    from p2pdist.model.members import Address

    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  # compared, not bound
    return Address(anywhere.get(address.host, address.host), address.port)
