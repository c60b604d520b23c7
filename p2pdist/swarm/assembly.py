"""Puts a node together: store, exchange, tracker client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from p2pdist.control.client import TrackerClient
from p2pdist.control.core.orders import PrewarmOrder
from p2pdist.control.renewing import RENEWAL_S, Renewing
from p2pdist.exchange.securing import LinkIdentity
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.clones import INSTANCE_BYTES
from p2pdist.model.control import Describe
from p2pdist.model.health import Reason
from p2pdist.model.ids import Digest, HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.model.private_places import IpNetwork
from p2pdist.process import clock, logs
from p2pdist.process.files import state_directory
from p2pdist.process.health import Health
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder, identity_conditions
from p2pdist.process.own_addresses import OwnAddresses
from p2pdist.process.own_platform import own_platform
from p2pdist.process.proxy_key_holder import ProxyKeyHolder, proxy_key_conditions
from p2pdist.process.secret_holder import SecretHolder, secret_conditions
from p2pdist.process.trace_file import TraceFile
from p2pdist.registry.proxy_client import ProxyClient, ProxyTls
from p2pdist.store.ports import BlobStore, OpenStore, StoreLimits
from p2pdist.swarm.ailing import conditions, watchers_of
from p2pdist.swarm.core.traced import Trace
from p2pdist.swarm.counters import SOURCES
from p2pdist.swarm.host_id import OwnId, machine_mark
from p2pdist.swarm.node import Node
from p2pdist.swarm.refusing import RefusalLog, links_allowed
from p2pdist.swarm.scrubbing import scrub_for_ever
from p2pdist.swarm.server import everything

log = logging.getLogger(__name__)

# Half of the time that a service manager leaves us (operations, section 3).
DRAIN_S: Final = 15.0
# Those that come before the daemon has started: one for each job, and again when it reconnects.
EARLY_ORDERS_MAX: Final = 1024
BOOT_ID_PATH: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class About:
    """How the host describes itself to the tracker."""

    name: str = ""
    """Empty: the machine's host name."""
    labels: Sequence[str] = ()
    runtimes: Sequence[str] = ()
    """Those that jobs may pull images into."""
    mirror: bool = False
    """A proxy that its host's runtime pulls from."""

    def message(self) -> Describe:
        name = self.name or socket.gethostname()
        labels, runtimes = list(self.labels), list(self.runtimes)
        return Describe(name[:255], labels, own_platform(), runtimes, self.mirror)


class Orders:
    """What the tracker orders, kept until there is somebody to carry it out."""

    def __init__(self) -> None:
        self._early: list[PrewarmOrder] = []
        self._take: Callable[[PrewarmOrder], None] | None = None

    def put(self, order: PrewarmOrder) -> None:
        if self._take is None:
            self._early = [*self._early, order][-EARLY_ORDERS_MAX:]
        else:
            self._take(order)

    def go_to(self, take: Callable[[PrewarmOrder], None]) -> None:
        self._take = take
        for order in self._early:
            take(order)
        self._early.clear()


@dataclass(frozen=True, slots=True)
class NodeOptions:
    """Values only: the settings loader stays outside."""

    role: Role
    state_dir: Path
    place: Place
    secret: SecretHolder
    proxy_keys: ProxyKeyHolder
    exchange_listen: Address
    advertise: Sequence[Address]
    trackers: Sequence[str]
    store_limits: StoreLimits
    links_max: int = 1024
    upload_bytes_per_s: int = 0
    """0: as fast as the link allows."""
    about: About = field(default_factory=About)
    scrub_bytes_per_s: int = 0
    """0: stored blobs are hashed again when they are read first, and not besides."""
    identity: IdentityHolder | None = None
    """What says who this host is to trackers; without it the file of the state directory does."""
    unix_s: Callable[[], float] = clock.unix_s
    trace_file: Path | None = None
    """To which the node writes what it hears and decides."""
    machine: str = field(default_factory=machine_mark)
    """Which one this is, as far as that can be told: the host id is bound to it."""
    member_networks: Collection[IpNetwork] = ()
    """Where hosts may say they are beside where they are seen."""


class Named(NamedTuple):
    """How many trackers and proxies the settings name."""

    trackers: int
    proxies: int


@dataclass(frozen=True, slots=True)
class RunningNode:
    node: Node
    transport: ExchangeTransport
    tracker: TrackerClient
    store: BlobStore
    me: Callable[[], Member]
    own_id: OwnId
    exchange_address: Address
    started_s: float
    orders: Orders
    named: Named
    """How many trackers and proxies the settings name."""
    identity: IdentityHolder | None
    secret: SecretHolder
    proxy_keys: ProxyKeyHolder

    async def drain(self, grace_s: float = DRAIN_S) -> None:
        """Stop being a source: named by no tracker, offering nothing; runs on their way end."""
        await self.tracker.close()
        self.transport.draining = True
        self.node.withdraw()
        try:
            async with asyncio.timeout(grace_s):
                await self.transport.wait_sent()
        except TimeoutError:
            logs.event(log, logging.WARNING, "drain.cut_short", grace_s=grace_s)


@asynccontextmanager
async def running_node(
    options: NodeOptions,
    proxies: Sequence[ProxyClient],
    *,
    open_store: OpenStore,
    servable: Callable[[Digest], bool] = everything,
) -> AsyncIterator[RunningNode]:
    """Run a node for as long as the block lasts. Raises ConfigError, StoreError, OSError.

    `servable`: which blobs and manifests may leave this host; asked before each of them does.
    """
    state_directory(options.state_dir)
    if options.identity is None:
        own_id = OwnId.load(options.state_dir, options.machine)
    else:
        own_id = OwnId.certified(options.identity.current.identity.host_id)
    keyring = options.proxy_keys.keyring
    rng = Random(secrets.randbits(64))  # noqa: S311  # chance for spreading load, no secret
    store = await open_store(
        options.state_dir / "store",
        limits=options.store_limits,
        keyring=keyring,
        boot_id=BOOT_ID_PATH.read_text().strip(),
    )
    towards = [*options.trackers, *(client.base_url for client in proxies)]
    addresses = OwnAddresses(options.advertise, towards)

    def me() -> Member:
        return Member(own_id.current, options.role, options.place, addresses.current)

    health = Health(unix_s=options.unix_s)
    trace_file, trace = opened_trace(options, own_id.current)
    node = Node(
        store=store,
        keyring=keyring,
        place=options.place,
        is_proxy=options.role is Role.PROXY,
        rng=rng,
        proxies=proxies,
        servable=servable,
        health=health,
        trace=trace,
    )
    limits = ExchangeLimits(
        links_max=links_allowed(options.links_max), upload_bytes_per_s=options.upload_bytes_per_s
    )
    refused, instance = RefusalLog(), secrets.token_bytes(INSTANCE_BYTES)

    def id_in_use(detail: str) -> None:
        """Another host has our id: go by another one from here on, everywhere."""
        keep = own_id.renew(asyncio.get_running_loop().time(), detail)
        if keep is not None:
            health.happened(Reason.HOST_CLONED, "", f"another host had the same host id: {detail}")
            node.tasks.start(asyncio.to_thread(keep), name="keep the host id")
            transport.drop_links("this host has a new id")
            tracker.tell_who_we_are()
        elif own_id.is_certified:
            text = f"another host shows the certificate of this one: {detail}"
            health.happened(Reason.HOST_CLONED, "", text)

    transport = ExchangeTransport(
        node.router,
        secret=options.secret.believed,
        me=me,
        limits=limits,
        watchers=watchers_of(node, refused, id_in_use),
        instance=instance,
        identity=lambda: link_identity(spoken(options.identity)),
        member_networks=options.member_networks,
    )
    orders = Orders()
    tracker = TrackerClient(
        list(options.trackers),
        secret=options.secret.believed,
        me=me,
        listener=node.tracker_side,
        rng=rng,
        numbers=lambda: _numbers(node),
        describe=options.about.message,
        on_order=orders.put,
        spoke_from=addresses.spoke_from,
        instance=instance,
        on_id_in_use=id_in_use,
        health=health,
        identity=options.identity,
    )
    if (own := options.identity) is not None:
        own.revocations.on_more.append(partial(_cut_revoked, own, transport))

    async def cut_unbelieved() -> None:
        tracker.cut_unbelieved()
        await transport.cut_unbelieved()

    async with contextlib.AsyncExitStack() as parts:
        if trace_file is not None:
            parts.push_async_callback(asyncio.to_thread, trace_file.close)
        parts.push_async_callback(store.close)
        parts.push_async_callback(transport.close)
        bound = await transport.listen(options.exchange_listen.host, options.exchange_listen.port)
        await addresses.listening(bound)
        node.start(transport, tracker)
        parts.push_async_callback(node.close)
        health.conditions = lambda: {
            **conditions(node, options.trackers, addresses.trouble()),
            **identity_conditions(options.identity),
            **secret_conditions(options.secret),
            **proxy_key_conditions(options.proxy_keys),
        }
        node.tasks.start(scrub_for_ever(node, options.scrub_bytes_per_s), name="scrub")
        tracker.start()
        parts.push_async_callback(tracker.close)
        node.tasks.start(addresses.watch(tracker.tell_who_we_are), name="own addresses")
        node.tasks.start(health.watch(), name="health")
        options.secret.on_taken += [cut_unbelieved]
        node.tasks.start(options.secret.watch(), name="cluster secret")
        options.proxy_keys.on_taken += [node.keys_changed]
        node.tasks.start(options.proxy_keys.watch(), name="proxy keys")
        if options.identity is not None:
            node.tasks.start(options.identity.watch(), name="identity")
            ask = partial(tracker.renew, timeout_s=RENEWAL_S)
            keep = Renewing(
                options.identity, ask, lambda: tracker.renews, rng, tracker.show_certificate
            )
            node.tasks.start(keep.watch(), name="renewal")
        started_s = asyncio.get_running_loop().time()
        named = Named(len(options.trackers), len(proxies))
        yield RunningNode(
            node, transport, tracker, store, me, own_id, bound, started_s, orders, named,
            options.identity, options.secret, options.proxy_keys,
        )  # fmt: skip


def spoken(own: IdentityHolder | None) -> HostIdentity | None:
    """What this host shows now, if anything."""
    return None if own is None else own.spoken


def link_identity(own: HostIdentity | None) -> LinkIdentity | None:
    """What links prove who this host is with."""
    if own is None:
        return None
    return LinkIdentity(own.client, own.server, own.required, own.against)


def _cut_revoked(own: IdentityHolder, transport: ExchangeTransport) -> None:
    """Links that stand are as good as they were when they were made."""
    revoked = own.current.revoked
    transport.drop_links(
        "its host was revoked",
        lambda link: link.sealed and link.session.member.host_id in revoked,
    )


def proxy_tls(own: IdentityHolder | None) -> ProxyTls | None:
    """How `/v2/` of proxies is asked."""
    if own is None:
        return None
    return ProxyTls(lambda: now.proxies if (now := own.spoken) else None, own.required)


def opened_trace(options: NodeOptions, host: HostId) -> tuple[TraceFile | None, Trace | None]:
    """Begin the trace of this run, if one is wanted. Raises ConfigError."""
    if options.trace_file is None:
        return None, None
    role = options.role.value
    file = TraceFile(options.trace_file, host, setting=f"{role}.trace_file")
    trace, now_s = Trace(file.write), asyncio.get_running_loop().time()
    trace.begin(host, now_s, role=role, dc=options.place.dc, unix_s=options.unix_s())
    return file, trace


def _numbers(node: Node) -> dict[str, float]:
    """A few sums for the tracker, so that not every host has to be scraped."""
    counters = node.counters
    numbers = {f"received_{source}": float(counters.received[source]) for source in SOURCES}
    numbers["sent_peer"] = float(counters.sent["peer"])
    numbers["bans"] = float(node.core.trust.bans_total)
    return numbers
