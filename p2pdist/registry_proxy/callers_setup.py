"""A proxy's part that serves registries which decide by their callers, as the settings have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from p2pdist.model.statements import Signer
from p2pdist.oci.names import ImageName
from p2pdist.registry.reading.client import UpstreamClient
from p2pdist.registry_proxy.asking import Asking
from p2pdist.registry_proxy.caller_backend import CallerBackend, SmallsOf
from p2pdist.registry_proxy.caller_gate import CallerGate
from p2pdist.registry_proxy.core.access import Access
from p2pdist.registry_proxy.core.callers import CallerBook
from p2pdist.registry_proxy.core.tags import TagCache
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.registry_proxy.obtaining import Obtaining
from p2pdist.registry_proxy.private_blobs import PrivateBlobs
from p2pdist.settings import Settings
from p2pdist.swarm.assembly import RunningNode, spoken
from p2pdist.swarm.core.links import Links
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.outside import DirectSource

# What one repository has in tags and blobs that anybody asks for; 1,024 repositories are kept.
TAGS_MAX: Final = 256
LINKS_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class Callers:
    gate: CallerGate
    backend: CallerBackend
    private: PrivateBlobs
    hosts: frozenset[str]

    async def decides(self, registry: str) -> bool:
        return registry in self.hosts


def callers(
    settings: Settings,
    running: RunningNode,
    upstream: UpstreamClient,
    signer: Signer,
    asking: Asking,
    obtaining: Obtaining,
) -> Callers:
    """`backend` is the caller's to close."""
    own = settings.proxy

    def service_of(name: ImageName, smalls: SmallsOf) -> ManifestService:
        tags = TagCache(
            soft_ttl_s=own.tag_ttl_s, stale_if_error_s=own.stale_if_error_s, tags_max=TAGS_MAX
        )
        return ManifestService(
            upstream,
            smalls,
            signer,
            running.node.keyring,
            tags=tags,
            access=Access([name.upstream], Links(links_max=LINKS_MAX)),
            asking=asking,
            expiry_unix_s=lambda: running.node.health.sober_unix_s,
        )

    def used(label: str, nbytes: int) -> None:
        if label == UPSTREAM:
            running.node.counters.received[UPSTREAM] += nbytes

    source = DirectSource(upstream)
    private = PrivateBlobs(
        running.node,
        signer,
        obtaining,
        source,
        own_id=lambda: running.own_id.current,
        proved=lambda: spoken(running.identity) is not None,
        unix_s=lambda: running.node.health.sober_unix_s,
    )
    gate = CallerGate(upstream, asking, CallerBook(grace_s=own.caller_grace_s))
    backend = CallerBackend(gate, service_of, private, running.node, source, used, asking.budgets)
    return Callers(gate, backend, private, upstream.caller_hosts)
