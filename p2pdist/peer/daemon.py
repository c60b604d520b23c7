"""The peer's process: node, mirror, admin port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import aiohttp

from p2pdist.host.mirror import HostMirror, admitted_runtimes, runtime_puller
from p2pdist.host.prewarming import Prewarmer
from p2pdist.model.members import Address, Place, Role
from p2pdist.peer.callers import CallerForward
from p2pdist.peer.manifests import ManifestBook
from p2pdist.peer.mirror import MirrorBackend
from p2pdist.peer.ordering import PeerSource
from p2pdist.peer.private_pulls import PrivatePulls
from p2pdist.peer.snapshotter_desk import snapshotter_desk
from p2pdist.process import clock
from p2pdist.process.admin import AdminServer
from p2pdist.process.daemon import notify
from p2pdist.process.files import state_directory
from p2pdist.process.identity_holder import identity_holder
from p2pdist.process.listening import HttpServer
from p2pdist.process.proxy_key_holder import proxy_key_holder
from p2pdist.process.secret_holder import secret_holder
from p2pdist.registry.by_registry import BackendByRegistry
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.registry.reading.client import UpstreamClient
from p2pdist.registry.reading.entries import by_caller, upstream_entries, upstream_hosts
from p2pdist.registry.reading.metrics import payload_samples
from p2pdist.registry.serving.pull_metrics import PullMetrics
from p2pdist.registry.serving.refused import RefusedRequests
from p2pdist.settings import Settings
from p2pdist.settings_json import as_json
from p2pdist.store.ports import OpenStore, StoreLimits
from p2pdist.store.store import Store
from p2pdist.swarm import links_file
from p2pdist.swarm.assembly import (
    About,
    NodeOptions,
    RunningNode,
    proxy_tls,
    running_node,
)
from p2pdist.swarm.core.links import Links
from p2pdist.swarm.sourcing import BlobFinder
from p2pdist.swarm.telling import node_samples, node_status, story_routes


@dataclass(frozen=True, slots=True)
class RunningPeer:
    running: RunningNode
    mirror: Address
    admin: Address
    admin_server: AdminServer
    mirror_server: HttpServer
    backend: MirrorBackend


@asynccontextmanager
async def running_peer(
    settings: Settings,
    *,
    unix_s: Callable[[], float] = clock.unix_s,
    open_store: OpenStore = Store.open,
) -> AsyncIterator[RunningPeer]:
    """Run a peer for as long as the block lasts; `unix_s` is its wall clock.

    Raises ConfigError, StoreError, OSError.
    """
    own, options = settings.peer, _options(settings, unix_s)
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        tls = proxy_tls(options.identity)
        proxies = [ProxyClient(url, session, tls) for url in own.proxies]
        node = running_node(options, proxies, open_store=open_store)
        running = await stack.enter_async_context(node)
        upstream = None
        if own.direct:
            entries = upstream_entries(settings, with_secrets=False)
            upstream = await stack.enter_async_context(UpstreamClient(entries))
        links = Links()
        links_path = state_directory(settings.host.state_dir / "peer") / links_file.FILE_NAME
        await links_file.load(links, links_path)
        stack.push_async_callback(links_file.save, links, links_path)
        writing = links_file.keep_writing(links, links_path)
        running.node.tasks.start(writing, name="links snapshot")
        book = ManifestBook(running.node, proxies, upstream, tag_ttl_s=own.tag_ttl_s, links=links)
        finder = BlobFinder(running.node)
        source = PeerSource(running.node, book, finder)
        prewarmer = Prewarmer(
            running.node, source, runtime_puller(settings), fill_rate=own.fill_rate
        )
        backend = MirrorBackend(
            running.node,
            book,
            finder,
            proxies,
            upstream,
            patience_s=own.patience_s,
            fill=prewarmer.fill,
        )
        running.orders.go_to(prewarmer.take)
        proxy_links = running.node.proxy_links
        proxy_links.registries.add_own(upstream_hosts(settings), by_caller(settings))
        private = PrivatePulls(
            running.node, finder, lambda: running.own_id.current, patience_s=own.patience_s
        )
        forward = CallerForward(running.node, proxies, upstream, private)
        metrics, refused = PullMetrics(proxy_links.registries), RefusedRequests()
        mirror = HostMirror(
            settings,
            BackendByRegistry(backend, forward, proxy_links.decides_by_caller),
            registries=proxy_links.registries,
            metrics=metrics,
            refused=refused,
            upload=running.transport.upload,
            renew=proxy_links.renew_registries,
            by_caller=lambda: bool(proxy_links.registries.by_caller),
            beside=snapshotter_desk(
                backend.image_of_chain, running.node.tracker, backend.wanted, backend.coming
            ),
        )
        stack.push_async_callback(mirror.server.close)
        stack.push_async_callback(backend.close)
        await mirror.start()
        admin = AdminServer(
            own.admin_listen,
            status=lambda: {
                **node_status(running),
                **prewarmer.status(),
                "registries": len(proxy_links.registries),
                **mirror.status(),
            },
            samples=lambda: itertools.chain(
                node_samples(running),
                prewarmer.samples(),
                refused.samples(),
                metrics.samples(),
                payload_samples(upstream.counters) if upstream is not None else (),
            ),
            ready=lambda: {"mirror": True},
            degraded=running.node.health.names,
            durations=metrics.all(),
            routes=story_routes(running),
            names=settings.host.http_names,
            settings=partial(as_json, settings),
        )
        stack.push_async_callback(admin.close)
        address = await admin.start()
        yield RunningPeer(running, mirror.address, address, admin, mirror.server, backend)


def _options(settings: Settings, unix_s: Callable[[], float]) -> NodeOptions:
    own = settings.peer
    return NodeOptions(
        role=Role.PEER,
        state_dir=settings.host.state_dir / "peer",
        place=Place(settings.host.dc, settings.host.rack),
        secret=secret_holder(settings),
        proxy_keys=proxy_key_holder(settings),
        exchange_listen=own.exchange_listen,
        advertise=settings.host.advertise,
        member_networks=settings.cluster.member_networks,
        trackers=own.trackers,
        identity=identity_holder(settings, Role.PEER, unix_s),
        upload_bytes_per_s=own.upload_rate,
        links_max=own.links_max,
        scrub_bytes_per_s=settings.store.scrub_rate,
        store_limits=store_limits(settings),
        trace_file=own.trace_file,
        about=About(
            settings.host.name,
            settings.host.labels,
            admitted_runtimes(settings),
        ),
        unix_s=unix_s,
    )


def store_limits(settings: Settings) -> StoreLimits:
    section = settings.store
    return StoreLimits(section.max_bytes, section.high_watermark, section.low_watermark)


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`, then drain."""
    async with running_peer(settings) as peer:
        notify("READY=1")
        await stop.wait()
        peer.admin_server.draining = True
        await peer.backend.close()  # else the end waits for its questions
        await asyncio.gather(peer.mirror_server.close(), peer.running.drain())
