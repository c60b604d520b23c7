"""The proxy's process: node, authority, `/v2/` surface, admin port."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import aiohttp

from p2pdist.errors import StoreError
from p2pdist.host.mirror import HostMirror, admitted_runtimes, runtime_puller
from p2pdist.host.prewarming import Prewarmer
from p2pdist.model.ids import Digest
from p2pdist.model.members import Address, Place, Role
from p2pdist.model.private_digests import is_private
from p2pdist.model.statements import Signer, key_id
from p2pdist.oci.registry_list import encode_registries
from p2pdist.process.admin import AdminServer
from p2pdist.process.daemon import notify
from p2pdist.process.files import state_directory
from p2pdist.process.identity_holder import identity_holder
from p2pdist.process.listening import HttpServer
from p2pdist.process.metrics import Sample
from p2pdist.process.proxy_key_holder import ProxyKeyHolder, proxy_key_holder
from p2pdist.process.secret_holder import secret_holder
from p2pdist.process.signing_key_holder import (
    SigningKeyHolder,
    signing_key_conditions,
    signing_key_holder,
    signing_key_samples,
    signing_key_status,
)
from p2pdist.registry.by_registry import BackendByRegistry
from p2pdist.registry.ports import RegistryBackend
from p2pdist.registry.proxy_client import (
    EXCHANGE_PORT,
    HOST_ID,
    KEY_ID,
    SPEAKS_TLS,
    ProxyClient,
)
from p2pdist.registry.reading.client import UpstreamClient
from p2pdist.registry.reading.entries import by_caller, upstream_entries, upstream_hosts
from p2pdist.registry.reading.metrics import asking_samples, payload_samples
from p2pdist.registry.serving.endpoint import RegistryEndpoint
from p2pdist.registry.serving.pull_metrics import PullMetrics
from p2pdist.registry.serving.refused import RefusedRequests
from p2pdist.registry_proxy import notifications_http
from p2pdist.registry_proxy.asking import Asking
from p2pdist.registry_proxy.authority import ProxyAuthority
from p2pdist.registry_proxy.backend import ProxyBackend
from p2pdist.registry_proxy.budgets import CallerBudgets
from p2pdist.registry_proxy.callers_setup import callers
from p2pdist.registry_proxy.core.access import Access
from p2pdist.registry_proxy.core.spending import Spending
from p2pdist.registry_proxy.core.tags import TagCache
from p2pdist.registry_proxy.indexing import LayerIndexer
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.registry_proxy.ordering import ProxyOrderSource
from p2pdist.registry_proxy.replication_setup import Replicating, replicating
from p2pdist.registry_proxy.who_asks import exchanging_host, members_only
from p2pdist.settings import Settings
from p2pdist.settings_json import as_json
from p2pdist.store.ports import BlobStore, OpenStore, StoreLimits
from p2pdist.store.store import Store
from p2pdist.swarm import links_file
from p2pdist.swarm.assembly import (
    About,
    NodeOptions,
    RunningNode,
    proxy_tls,
    running_node,
    spoken,
)
from p2pdist.swarm.core.links import Links
from p2pdist.swarm.outside import DirectSource, WatchedSource
from p2pdist.swarm.telling import node_samples, node_status, story_routes


@dataclass(frozen=True, slots=True)
class RunningProxy:
    running: RunningNode
    registry: Address
    admin: Address
    admin_server: AdminServer
    upstream: UpstreamClient
    registry_server: HttpServer
    replicating: Replicating
    mirror: HostMirror | None
    signing: SigningKeyHolder

    async def drain(self) -> None:
        """Let what is on its way come to its end, and take nothing new."""
        self.admin_server.draining = True
        servers = [self.registry_server, *([self.mirror.server] if self.mirror else [])]
        await asyncio.gather(*(server.close() for server in servers), self.running.drain())


@asynccontextmanager
async def running_proxy(
    settings: Settings, *, with_mirror: bool = False, open_store: OpenStore = Store.open
) -> AsyncIterator[RunningProxy]:
    """Run a proxy for as long as the block lasts.

    `with_mirror`: it is the peer of its own host as well; the runtime there pulls at `peer.listen`.
    Raises ConfigError, StoreError, OSError.
    """
    own = settings.proxy
    believed = proxy_key_holder(settings)
    signing = signing_key_holder(settings, believed)
    signer = signing.signer
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        entries = upstream_entries(settings, with_secrets=True)
        upstream = await stack.enter_async_context(UpstreamClient(entries))
        options = _options(settings, believed, with_mirror=with_mirror)
        tls = proxy_tls(options.identity)
        parents = [ProxyClient(url, session, tls) for url in own.parents]
        links = Links()
        links_path = state_directory(settings.host.state_dir / "proxy") / links_file.FILE_NAME
        await links_file.load(links, links_path)  # before anybody may ask what is servable
        access = Access(
            upstream.servable_hosts,
            links,
            accounts=upstream.account_hosts,
            callers=upstream.caller_hosts,
        )
        node = running_node(
            options,
            parents,
            servable=partial(_servable, access, options),
            open_store=open_store,
        )
        running = await stack.enter_async_context(node)
        stack.push_async_callback(links_file.save, links, links_path)
        writing = links_file.keep_writing(links, links_path)
        running.node.tasks.start(writing, name="links snapshot")
        metrics = PullMetrics(frozenset(upstream_hosts(settings)))
        spending = Spending(questions_per_min=own.caller_questions, bytes_per_s=own.caller_rate)
        asking = Asking(budgets=CallerBudgets(spending))
        manifests = _manifests(settings, running, upstream, signer, parents, access, asking)
        stack.push_async_callback(manifests.close)
        rules = await stack.enter_async_context(
            replicating(settings, manifests, running.node.rng, running.secret, running.identity)
        )
        source = WatchedSource(DirectSource(upstream), manifests.missing)
        authority = ProxyAuthority(
            running.node,
            manifests,
            signer,
            source,
            parents,
            running.node.rng,
            concurrency=upstream.concurrency,
            budgets=asking.budgets,
        )
        running.node.authority = authority
        indexer = LayerIndexer(running.node, access, signer, running.node.rng)
        _follow_keys(running, signing, indexer)
        if own.layer_index:
            authority.arrives = indexer.arrives
        runtime = runtime_puller(settings) if with_mirror else None
        own_backend = ProxyBackend(running.node, manifests, authority, source)
        prewarmer = Prewarmer(running.node, ProxyOrderSource(own_backend, authority), runtime)
        authority.budget_of = prewarmer.budget_of
        running.orders.go_to(prewarmer.take)
        calls = callers(settings, running, upstream, signer, asking, authority.obtaining)
        authority.wanted_private = calls.private.wanted
        stack.push_async_callback(calls.backend.close)
        backend = BackendByRegistry(
            ProxyBackend(running.node, manifests, authority, source, asking.budgets),
            calls.backend,
            calls.decides,
        )
        endpoint = _endpoint(settings, running, backend, metrics, rules, signer)
        registry = _registry_server(settings, running, endpoint)
        stack.push_async_callback(registry.close)
        address = await registry.start()
        mirror = None
        if with_mirror:
            mirror = _mirror(settings, running, backend, metrics, endpoint.refused)
            stack.push_async_callback(mirror.server.close)
            await mirror.start()
        admin = AdminServer(
            own.admin_listen,
            status=lambda: {
                **_status(running, prewarmer, address, len(settings.upstream)),
                **signing_key_status(signing),
                **(mirror.status() if mirror is not None else {}),
            },
            samples=lambda: itertools.chain(
                _samples(running, upstream, rules, prewarmer, asking),
                indexer.samples(),
                signing_key_samples(signing),
                calls.gate.samples(),
                calls.private.samples(),
                endpoint.refused.samples(),
                metrics.samples(),
            ),
            ready=lambda: {"registry": True, **({"mirror": True} if with_mirror else {})},
            degraded=running.node.health.names,
            durations=metrics.all(),
            routes=story_routes(running),
            names=settings.host.http_names,
            settings=partial(as_json, settings),
        )
        stack.push_async_callback(admin.close)
        yield RunningProxy(
            running, address, await admin.start(), admin, upstream, registry, rules, mirror, signing
        )


def _servable(access: Access, options: NodeOptions, digest: Digest) -> bool:
    """What is private goes to hosts with a certificate that show a ticket for it."""
    return options.identity is not None if is_private(digest) else access.servable(digest)


def _manifests(
    settings: Settings,
    running: RunningNode,
    upstream: UpstreamClient,
    signer: Signer,
    parents: list[ProxyClient],
    access: Access,
    asking: Asking,
) -> ManifestService:
    tags = TagCache(
        soft_ttl_s=settings.proxy.tag_ttl_s, stale_if_error_s=settings.proxy.stale_if_error_s
    )
    return ManifestService(
        upstream,
        running.store,
        signer,
        running.node.keyring,
        parents=parents,
        tags=tags,
        access=access,
        asking=asking,
        proven=lambda digest: _sealed_size(running.store, digest),
        held=partial(_held_part, running.store),
        expiry_unix_s=lambda: running.node.health.sober_unix_s,
    )


def _sealed_size(store: BlobStore, digest: Digest) -> int | None:
    """A seal of one of our proxies says that the blob of this size has its digest."""
    blob = store.get(digest)
    return blob.geometry.size_bytes if blob is not None and blob.chunk_map.sealed else None


async def _held_part(store: BlobStore, digest: Digest, start: int, count: int) -> bytes | None:
    blob = store.get(digest)
    if blob is None:
        small = await store.get_small(digest)
        return None if small is None else small.body[start : start + count]
    if not blob.complete:
        return None
    blob.hold()
    try:
        return await blob.read(start, count)
    except StoreError:
        return None
    finally:
        blob.release()


def _endpoint(
    settings: Settings,
    running: RunningNode,
    backend: RegistryBackend,
    metrics: PullMetrics,
    rules: Replicating,
    signer: Signer,
) -> RegistryEndpoint:
    hosts, deciding = frozenset(upstream_hosts(settings)), by_caller(settings)
    return RegistryEndpoint(
        backend,
        upstreams=hosts,
        ping_body=encode_registries(hosts, deciding),
        by_caller=lambda: bool(deciding),
        default_upstream=settings.proxy.default_upstream,
        on_done=metrics.note,
        upload=running.transport.upload,
        proxy_headers=lambda: {
            EXCHANGE_PORT: str(running.exchange_address.port),
            HOST_ID: running.me().host_id,
            KEY_ID: key_id(signer.public_key_bytes).hex(),
            **({SPEAKS_TLS: "1"} if spoken(running.identity) else {}),
        },
        beside={notifications_http.PATH: rules.notifications.handle},
        host_of=partial(exchanging_host, running.identity),
    )


def _registry_server(
    settings: Settings, running: RunningNode, endpoint: RegistryEndpoint
) -> HttpServer:
    identity, app = running.identity, endpoint.app()
    app.middlewares.insert(
        0,
        members_only(
            identity,
            settings.proxy.open_to,
            endpoint.refused,
            beside=(notifications_http.PATH,),
        ),
    )
    return HttpServer(
        settings.proxy.listen,
        app,
        names=settings.host.http_names,
        tls=lambda: now.server if (now := spoken(identity)) else None,
    )


def _mirror(
    settings: Settings,
    running: RunningNode,
    backend: RegistryBackend,
    metrics: PullMetrics,
    refused: RefusedRequests,
) -> HostMirror:
    """Over the proxy's own node: what its host's runtime pulls is not kept a second time."""
    return HostMirror(
        settings,
        backend,
        registries=frozenset(upstream_hosts(settings)),
        metrics=metrics,
        refused=refused,
        upload=running.transport.upload,
        by_caller=lambda: bool(by_caller(settings)),
    )


def _follow_keys(running: RunningNode, signing: SigningKeyHolder, indexer: LayerIndexer) -> None:
    """Take up another signing key, and do what follows from other keys."""
    health = running.node.health
    others = health.conditions
    health.conditions = lambda: {**others(), **signing_key_conditions(signing)}
    signing.on_taken.append(running.node.keys_changed)
    for holder in (running.proxy_keys, signing):
        holder.on_taken.append(indexer.keys_changed)
    running.node.tasks.start(signing.watch(), name="signing key")


def _options(settings: Settings, proxy_keys: ProxyKeyHolder, *, with_mirror: bool) -> NodeOptions:
    own, section = settings.proxy, settings.store
    return NodeOptions(
        role=Role.PROXY,
        state_dir=settings.host.state_dir / "proxy",
        place=Place(settings.host.dc, settings.host.rack),
        secret=secret_holder(settings),
        proxy_keys=proxy_keys,
        exchange_listen=own.exchange_listen,
        advertise=settings.host.advertise,
        member_networks=settings.cluster.member_networks,
        trackers=own.trackers,
        identity=identity_holder(settings, Role.PROXY),
        upload_bytes_per_s=own.upload_rate,
        links_max=own.links_max,
        scrub_bytes_per_s=settings.store.scrub_rate,
        trace_file=own.trace_file,
        store_limits=StoreLimits(section.max_bytes, section.high_watermark, section.low_watermark),
        about=About(
            settings.host.name,
            settings.host.labels,
            admitted_runtimes(settings) if with_mirror else [],
            mirror=with_mirror,
        ),
    )


def _status(
    running: RunningNode, prewarmer: Prewarmer, registry: Address, registries: int
) -> dict[str, Any]:
    return {
        **node_status(running),
        **prewarmer.status(),
        "registry": str(registry),
        "registries": registries,
    }


def _samples(
    running: RunningNode,
    upstream: UpstreamClient,
    rules: Replicating,
    prewarmer: Prewarmer,
    asking: Asking,
) -> Iterable[Sample]:
    """The node's counters and what upstreams were asked; upstreams are the configured ones."""
    yield from node_samples(running)
    yield from prewarmer.samples()
    yield from rules.notifications.samples()
    if rules.replication is not None:
        yield from rules.replication.samples()
    yield from payload_samples(upstream.counters)
    yield from asking_samples(upstream.counters)
    yield Sample(
        "p2pdist_proxy_questions_refused_total", "counter",
        "Questions not passed on to upstream: their clients asked too much in vain.",
        {}, asking.misses.refused_total,
    )  # fmt: skip
    yield from asking.budgets.samples()
    yield Sample(
        "p2pdist_upstream_last_good_address_total", "counter",
        "Registries' names that did not resolve, and were reached by their last good address.",
        {}, upstream.kept_addresses_total,
    )  # fmt: skip


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop`, then drain."""
    async with running_proxy(settings) as proxy:
        notify("READY=1")
        await stop.wait()
        await proxy.drain()
