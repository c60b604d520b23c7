"""The peer's process: node, mirror, admin port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial

import aiohttp

from p2pdist.model.members import Address, Place, Role
from p2pdist.model.recent_pulls import RecentPulls
from p2pdist.peer.assembly import (
    About,
    NodeOptions,
    RunningNode,
    node_samples,
    node_status,
    running_node,
)
from p2pdist.peer.manifests import ManifestBook
from p2pdist.peer.mirror import MirrorBackend
from p2pdist.peer.ordering import PeerSource
from p2pdist.peer.prewarming import Prewarmer
from p2pdist.peer.runtime_pull import ContainerdPuller, DockerPuller, RuntimePuller
from p2pdist.peer.sourcing import BlobFinder
from p2pdist.runtime import clock
from p2pdist.runtime.admin import AdminServer
from p2pdist.runtime.daemon import notify
from p2pdist.runtime.identity import (
    proxy_keys,
    read_secret,
    upstream_entries,
    upstream_hosts,
)
from p2pdist.runtime.listening import HttpServer
from p2pdist.runtime.proxy_client import ProxyClient
from p2pdist.runtime.pull_metrics import PullMetrics
from p2pdist.runtime.registry_http import RegistryEndpoint
from p2pdist.runtime.registry_pull import PullRecord
from p2pdist.runtime.upstream import UpstreamClient
from p2pdist.runtime.upstream_metrics import payload_samples
from p2pdist.settings import Settings
from p2pdist.settings_json import as_json
from p2pdist.store.store import StoreLimits


@dataclass(frozen=True, slots=True)
class RunningPeer:
    running: RunningNode
    mirror: Address
    admin: Address
    admin_server: AdminServer
    mirror_server: HttpServer


@asynccontextmanager
async def running_peer(
    settings: Settings, *, unix_s: Callable[[], float] = clock.unix_s
) -> AsyncIterator[RunningPeer]:
    """Run a peer for as long as the block lasts; `unix_s` is its wall clock.

    Raises ConfigError, StoreError, OSError.
    """
    own, options = settings.peer, replace(_options(settings), unix_s=unix_s)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        proxies = [ProxyClient(url, session) for url in own.proxies]
        running = await stack.enter_async_context(running_node(options, proxies))
        upstream = None
        if own.direct:
            entries = upstream_entries(settings, with_secrets=False)
            upstream = await stack.enter_async_context(UpstreamClient(entries))
        book = ManifestBook(running.node, proxies, upstream, tag_ttl_s=own.tag_ttl_s)
        finder = BlobFinder(running.node)
        backend = MirrorBackend(
            running.node, book, finder, proxies, upstream, patience_s=own.patience_s
        )
        source = PeerSource(running.node, book, finder)
        prewarmer = Prewarmer(running.node, source, _runtime_puller(settings))
        running.orders.go_to(prewarmer.take)
        links = running.node.proxy_links
        links.registries.add_own(upstream_hosts(settings))
        metrics, recent = PullMetrics(links.registries), RecentPulls()
        endpoint = RegistryEndpoint(
            backend,
            on_done=partial(_note_pull, metrics, recent),
            upstreams=links.registries,
            renew=links.renew_registries,
            default_upstream=own.default_upstream,
            upload=running.transport.upload,
        )
        mirror = HttpServer(own.listen, endpoint.app(), names=settings.host.http_names)
        stack.push_async_callback(mirror.close)
        address = await mirror.start()
        admin = AdminServer(
            own.admin_listen,
            status=lambda: {
                **node_status(running),
                **prewarmer.status(),
                "mirror": str(address),
                "registries": len(links.registries),
                "recent_pulls": recent.status(asyncio.get_running_loop().time()),
            },
            samples=lambda: itertools.chain(
                node_samples(running),
                prewarmer.samples(),
                endpoint.refused.samples(),
                metrics.samples(),
                payload_samples(upstream.counters) if upstream is not None else (),
            ),
            ready=lambda: {"mirror": True},
            degraded=running.node.health.names,
            durations=metrics.all(),
            names=settings.host.http_names,
            settings=partial(as_json, settings),
        )
        stack.push_async_callback(admin.close)
        yield RunningPeer(running, address, await admin.start(), admin, mirror)


def _note_pull(metrics: PullMetrics, recent: RecentPulls, record: PullRecord) -> None:
    metrics.note(record)
    if not record.sent_bytes:  # a HEAD, or a refusal
        return
    now_s = asyncio.get_running_loop().time()
    recent.note(
        str(record.name),
        record.reference if record.kind == "manifest" and ":" not in record.reference else "",
        record.bytes_by_source,
        started_s=now_s - record.duration_s,
        ended_s=now_s,
        cut=record.outcome == "cut",
    )


def _options(settings: Settings) -> NodeOptions:
    own = settings.peer
    return NodeOptions(
        role=Role.PEER,
        state_dir=settings.host.state_dir / "peer",
        place=Place(settings.host.dc, settings.host.rack),
        secret=read_secret(settings.cluster.secret_file),
        proxy_keys=proxy_keys(settings),
        exchange_listen=own.exchange_listen,
        advertise=settings.host.advertise,
        trackers=own.trackers,
        upload_bytes_per_s=own.upload_rate,
        links_max=own.links_max,
        scrub_bytes_per_s=settings.store.scrub_rate,
        store_limits=store_limits(settings),
        about=About(
            settings.host.name,
            settings.host.labels,
            [own.into_runtime] if own.into_runtime else [],
        ),
    )


def _runtime_puller(settings: Settings) -> RuntimePuller | None:
    own = settings.peer
    match own.into_runtime:
        case "docker":
            return DockerPuller(own.runtime_socket)
        case "containerd":
            return ContainerdPuller(
                own.runtime_socket, own.runtime_namespace, own.runtime_hosts_dir
            )
        case _:
            return None


def store_limits(settings: Settings) -> StoreLimits:
    section = settings.store
    return StoreLimits(section.max_bytes, section.high_watermark, section.low_watermark)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`, then drain."""
    async with running_peer(settings) as peer:
        notify("READY=1")
        await stop.wait()
        peer.admin_server.draining = True
        await asyncio.gather(peer.mirror_server.close(), peer.running.drain())
