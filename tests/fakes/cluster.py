"""Real daemons in this process: proxy, tracker and peers on loopback, with settings in code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.sim import replay
from bench.sim.checking import Checker
from p2pdist.model.members import Address
from p2pdist.model.private_places import IpNetwork
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process.keys import KeyFiles, make_keys
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Cluster, Host, Peer, Proxy, Settings, StoreSection, Tracker, Upstream
from p2pdist.store.ports import OpenStore
from p2pdist.store.store import Store
from p2pdist.tracker.daemon import RunningTracker, running_tracker


def url_of(address: Address, scheme: str = "http") -> str:
    return f"{scheme}://{address}"


@dataclass
class Lab:
    """Starts daemons one by one; all end with the block that made it."""

    directory: Path
    keys: KeyFiles
    upstreams: Mapping[str, str]
    """Host name -> base URL."""
    stack: AsyncExitStack
    trackers: list[str] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)
    federation: tuple[str, ...] = ()
    """Trackers of other datacenters that trackers started from now on belong to."""
    dc: str = "dc1"
    tag_ttl_s: float = 30.0
    loopback: str = "127.0.0.1"
    proxy_upload_rate: int = 0
    """0: no limit. On loopback a proxy is done with a small layer before peers have met."""

    layer_index: bool = False
    """Most layers here are no archives, and a process for each of them takes its time."""
    traces: dict[Path, None] = field(default_factory=dict)
    """Of all proxies and peers."""
    open_store: OpenStore = Store.open
    """What proxies and peers that are started from now on keep their blobs in."""
    identities: Mapping[str, Path] = field(default_factory=dict)
    """By role: the certificates of daemons that are started from now on."""
    require_identity: bool = False
    proxy_keys_file: Path | None = None
    """Of daemons that are started from now on, instead of the public half of `keys`."""
    ca_dir: Path | None = None
    """With which trackers that are started from now on renew certificates."""
    join: str = ""
    """Where they take hosts with a token."""
    open_to: tuple[IpNetwork, ...] = ()
    """Who may ask proxies without a certificate then."""
    member_networks: tuple[IpNetwork, ...] = ()

    def datacenter(self, dc: str) -> Lab:
        """Another datacenter of the same cluster: same keys and upstreams, hosts of its own."""
        return replace(self, dc=dc, trackers=[], proxies=[], directory=self.directory / dc)

    def settings(self, name: str, dc: str | None = None) -> Settings:
        any_port, trace_file = Address(self.loopback, 0), self._trace(name)
        return Settings(
            cluster=Cluster(
                self.keys.secret_file,
                () if self.proxy_keys_file is not None else (self.keys.public_key,),
                proxy_keys_file=self.proxy_keys_file,
                require_identity=self.require_identity,
                member_networks=self.member_networks,
            ),
            host=Host(self.directory / name, dc or self.dc),
            tracker=Tracker(
                any_port,
                any_port,
                announce_interval_s=0.1,
                federation=self.federation,
                identity_dir=self.identities.get("tracker"),
                ca_dir=self.ca_dir,
                join=self.join,
            ),
            proxy=Proxy(
                any_port,
                any_port,
                any_port,
                self.keys.key_file,
                tuple(self.trackers),
                parents=(),
                tag_ttl_s=self.tag_ttl_s,
                upload_rate=self.proxy_upload_rate,
                trace_file=trace_file,
                layer_index=self.layer_index,
                identity_dir=self.identities.get("proxy"),
                open_to=self.open_to,
            ),
            peer=Peer(
                any_port,
                any_port,
                any_port,
                tuple(self.trackers),
                tuple(self.proxies),
                direct=False,
                trace_file=trace_file,
                tag_ttl_s=self.tag_ttl_s,
                identity_dir=self.identities.get("peer"),
            ),
            store=StoreSection(max_bytes=4_000_000_000),
            upstream=tuple(Upstream(host, url) for host, url in self.upstreams.items()),
        )

    async def tracker(
        self, name: str = "tracker", *, listen: Address | None = None
    ) -> RunningTracker:
        settings = self.settings(name)
        if listen is not None:
            settings = replace(settings, tracker=replace(settings.tracker, listen=listen))
        running = await self.stack.enter_async_context(running_tracker(settings))
        self.trackers.append(url_of(running.control, "tcp"))
        return running

    async def proxy(
        self, name: str = "proxy", *, parents: Sequence[str] = (), dc: str | None = None
    ) -> RunningProxy:
        context = self.proxy_context(name, parents=parents, dc=dc)
        return await self.stack.enter_async_context(context)

    @asynccontextmanager
    async def proxy_context(
        self, name: str = "proxy", *, parents: Sequence[str] = (), dc: str | None = None
    ) -> AsyncIterator[RunningProxy]:
        """A proxy that later peers are configured with, and that may end before them."""
        settings = self.settings(name, dc)
        settings = replace(settings, proxy=replace(settings.proxy, parents=tuple(parents)))
        async with running_proxy(settings, open_store=self.open_store) as running:
            self.proxies.append(url_of(running.registry))
            yield running

    def _trace(self, name: str) -> Path:
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / f"{name}.trace"
        self.traces[file] = None
        return file

    async def peer(self, name: str, *, direct: bool = False, dc: str | None = None) -> RunningPeer:
        return await self.stack.enter_async_context(self.peer_context(name, direct=direct, dc=dc))

    @asynccontextmanager
    async def peer_context(
        self, name: str, *, direct: bool = False, dc: str | None = None
    ) -> AsyncIterator[RunningPeer]:
        settings = self.settings(name, dc)
        settings = replace(settings, peer=replace(settings.peer, direct=direct))
        async with running_peer(settings, open_store=self.open_store) as running:
            yield running


@asynccontextmanager
async def open_lab(directory: Path, upstreams: Mapping[str, str]) -> AsyncIterator[Lab]:
    """What its proxies and peers heard and decided must hold in the end (`bench.sim.checking`)."""
    async with AsyncExitStack() as stack:
        lab = Lab(directory, make_keys(directory / "keys"), upstreams, stack)
        yield lab
    faults = list[str]()
    for file in filter(Path.exists, lab.traces):
        checker = Checker()
        replay.read(file, checker)
        faults += checker.faults
    assert not faults, "\n".join(faults)


async def announced(tracker: RunningTracker, peer: RunningPeer) -> None:
    """Return when the tracker knows all that `peer` holds: who asks earlier is told of nobody."""
    async with asyncio.timeout(10):
        while True:
            held = {d.key for d in peer.running.node.tracker_side.full_announce() if d.complete}
            known = tracker.server.core.export(peer.running.me().host_id)
            if known is not None and held <= {d.key for d in known.deltas if d.complete}:
                return
            await asyncio.sleep(0.01)
