"""How a simulated proxy finds what its swarm lacks: the daemon's cores, one blob at a time.

What `registry_proxy/authority.py` and `leasing.py` do with tasks is done by callbacks here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random
from typing import assert_never

from bench.sim.clock import Clock
from bench.sim.content import Content
from bench.sim.hosts import SimHost
from bench.sim.ingesting import Ingesting
from bench.sim.upstream import Upstream
from bench.sim.watching import Watch, view_of
from p2pdist.model.control import LeaseAnswer, SwarmKey, digest_key, origin_key
from p2pdist.model.ids import Digest, HostId
from p2pdist.registry_proxy.core import leasing, sources
from p2pdist.registry_proxy.core.following import BlobView


class Obtaining:
    """One blob at one proxy, from the first who asks for it until it is whole there, or fails."""

    def __init__(
        self,
        clock: Clock,
        content: Content,
        host: SimHost,
        digest: Digest,
        upstream: Upstream,
        rng: Random,
        *,
        over: Callable[[], None],
    ) -> None:
        """`over` is called once: it is whole, or all was in vain."""
        self._over = over
        self._clock = clock
        self._content = content
        self._host = host
        self._digest = digest
        self._upstream = upstream
        self._rng = rng
        self._core = sources.SourcesCore(parents=False)
        self._leases: list[_Lease] = []
        self._watch = Watch(clock)
        self.ingest: Ingesting | None = None
        host.activate(digest)

    def begin(self) -> None:
        key = digest_key(self._digest)
        self._lease(key, leasing.Kind.DATACENTER, self._leased)

    def changed(self) -> None:
        """Some of the blob came, or its end."""
        for watch in (self._watch, *(lease.watch for lease in self._leases)):
            watch.wake()
        if self.ingest is not None:
            self.ingest.watch.wake()

    def _lease(
        self, key: SwarmKey, kind: leasing.Kind, used: Callable[[leasing.Use], None]
    ) -> None:
        lease = _Lease(self._clock, self._host, self._digest, key, kind, used)
        self._leases.append(lease)
        lease.begin()

    def _leased(self, use: leasing.Use) -> None:
        view = view_of(self._host, self._digest, self._clock.now_s)
        self._go(sources.Leased(use.fence > 0, use.holders, view))

    def _origin_told(self, use: leasing.Use) -> None:
        view = view_of(self._host, self._digest, self._clock.now_s)
        self._go(sources.OriginTold(use.fence > 0, view))

    def _looked(self) -> None:
        self._go(sources.Looked(view_of(self._host, self._digest, self._clock.now_s)))

    def _go(self, event: sources.Event) -> None:
        if not self._host.alive:
            return
        order = self._core.handle(event, self._clock.now_s)
        self._core.validate()
        match order:
            case sources.FollowSwarm():
                self._host.core.blobs[self._digest].join(self._clock.now_s)
                self._host.happened()
                self._clock.at(self._clock.now_s, self._looked)
            case sources.Wait():
                self._watch.wait(self._core.next_deadline_s(), self._looked)
            case sources.AskOrigin():
                self._lease(origin_key(self._digest), leasing.Kind.ORIGIN, self._origin_told)
            case sources.ReadRegistry(alone):
                self.ingest = Ingesting(
                    self._clock,
                    self._content,
                    self._host,
                    self._digest,
                    self._upstream,
                    self._rng,
                    alone=alone,
                    over=partial(self._go, sources.RegistryRead()),
                )
                self.ingest.begin()
            case sources.Stop():
                for lease in self._leases:
                    lease.end()
                self._over()
            case sources.Introduce() | sources.FollowParents():
                raise AssertionError("no simulated proxy has parents")
            case _:
                assert_never(order)


class _Lease:
    """Carries out one `LeaseCore`."""

    def __init__(
        self,
        clock: Clock,
        host: SimHost,
        digest: Digest,
        key: SwarmKey,
        kind: leasing.Kind,
        used: Callable[[leasing.Use], None],
    ) -> None:
        self.watch = Watch(clock)
        self._clock = clock
        self._host = host
        self._digest = digest
        self._key = key
        self._used = used
        self._core = leasing.LeaseCore(kind)
        self._source: HostId | None = None

    def begin(self) -> None:
        self._go(leasing.Started(self._view()))

    def end(self) -> None:
        if (fence := self._core.end()) is not None:
            self._host.line.end_lease(self._key, fence)

    def _view(self) -> BlobView:
        return view_of(self._host, self._digest, self._clock.now_s)

    def _go(self, event: leasing.Event) -> None:
        if not self._host.alive:
            return
        order = self._core.handle(event, self._clock.now_s)
        self._core.validate()
        match order:
            case leasing.Ask(timeout_s):
                self._host.line.lease(self._key, timeout_s, self._answered)
            case leasing.Copy(holder):
                self._source = holder.host_id
                self._host.follow(self._digest, holder.host_id, self._followed)
            case leasing.Wait():
                self.watch.wait(self._core.next_deadline_s(), self._looked)
            case leasing.Use():
                self._used(order)
            case _:
                assert_never(order)

    def _answered(self, answer: LeaseAnswer | None) -> None:
        self._go(leasing.Answered(answer, self._view()))

    def _followed(self, reached: bool) -> None:
        view = self._view()
        self._go(leasing.Reached(view) if reached else leasing.NotReached(view))

    def _looked(self) -> None:
        copies = self._core.phase is leasing.Phase.COPYING
        gone = copies and self._source not in self._host.links
        self._go(leasing.Looked(self._view(), source_gone=gone))
