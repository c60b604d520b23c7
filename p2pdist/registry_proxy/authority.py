"""Finds what the swarm lacks: from the proxy of another datacenter, else from upstream.

A blob is fetched only through a repository that named it, and only where its upstream may be
served to others. What becomes of a search is in `obtaining`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random

from p2pdist.errors import ErrorReason, P2pdistError, RegistryError, UpstreamError
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest
from p2pdist.model.private_digests import is_private
from p2pdist.model.statements import Signer
from p2pdist.oci import refusals
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.proxy_client import ProxyClient
from p2pdist.registry_proxy.budgets import BudgetSpent, CallerBudgets, unlimited
from p2pdist.registry_proxy.core.verdicts import blob_refusal
from p2pdist.registry_proxy.manifests import Claim, ManifestService
from p2pdist.registry_proxy.obtaining import Obtaining, Origin
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.counters import UPSTREAM
from p2pdist.swarm.fallback import OutsideSource
from p2pdist.swarm.node import Node
from p2pdist.swarm.outside import NotSmall, read_single
from p2pdist.swarm.smalls import SmallAnswer

log = logging.getLogger(__name__)

WhyNot = Mapping[ImageName, RegistryError]
"""What each repository that was asked for a small blob said instead of it."""


class ProxyAuthority:
    """Implements the node's `Authority`."""

    def __init__(
        self,
        node: Node,
        manifests: ManifestService,
        signer: Signer,
        source: OutsideSource,
        parents: Sequence[ProxyClient],
        rng: Random,
        *,
        concurrency: Mapping[str, int],
        budgets: CallerBudgets | None = None,
    ) -> None:
        """`concurrency`: how many blobs to fetch at a time of an upstream that has a limit.
        `budgets`: what whoever asks may have fetched; None: anything."""
        self._node = node
        self._manifests = manifests
        self._source = source
        self._parents = parents
        self.obtaining = Obtaining(
            node, signer, rng, concurrency=concurrency, budgets=budgets or unlimited()
        )
        self._smalls: SingleFlight[Digest, SmallAnswer | WhyNot] = SingleFlight()
        self.arrives: Callable[[ActiveBlob], None] = lambda _: None
        """Hears of each blob that is asked for, before it is fetched."""
        self.wanted_private: Callable[[Digest], None] = lambda _: None
        """Hears of each private blob that a host asks for which may have it."""
        self.budget_of: Callable[[Digest], TokenBucket | None] = lambda _: None
        """The rate of a job that is to fetch a blob; hosts may ask for it before its turn comes."""

    def wanted(self, digest: Digest, *, bulk: bool) -> None:
        """Start to fetch a blob, unless that is under way or nothing is known of it."""
        if is_private(digest):
            self.wanted_private(digest)
            return
        if self.obtaining.runs(digest) or self.obtaining.rests(digest):
            return
        if not (claims := self._large_claims(digest)):
            return
        active = self._node.actives.get(digest)
        ordered = active is not None and active.ordered  # by a job: its budget stays
        budget = self.budget_of(digest) if bulk else None
        size, names = claims[0].size_bytes, claims[0].names
        try:
            self.obtain(digest, size, names, budget, bulk=bulk and not ordered)
        except BudgetSpent:  # who asked goes to the registry itself, or asks again
            return

    def brings(self, digest: Digest) -> bool:
        return self.obtaining.runs(digest)

    def _large_claims(self, digest: Digest) -> list[Claim]:
        if self._manifests.links.made_of(digest) is not None:
            return []  # no registry has it
        claims = self._manifests.claims(digest)
        return [claim for claim in claims if not geometry_for(claim.size_bytes).single]

    def obtain(
        self,
        digest: Digest,
        size_bytes: int,
        names: Sequence[ImageName],
        budget: TokenBucket | None = None,
        *,
        bulk: bool = False,
    ) -> ActiveBlob:
        """Return the blob in motion; fetch it if it is not whole.

        It has another size than `size_bytes`, which is what `names` claim, where that is proven or
        where it is being fetched as others claim it: no claim ends what runs under another one.
        `bulk`: after all that anybody waits for. `budget` (which means bulk) paces what comes from
        outside of the datacenter; another call may replace it. Raises RegistryError where none of
        `names` may be served, BudgetSpent where whoever asks may have no more fetched.
        """
        names = [name for name in names if self._manifests.access.may_serve(name)]
        if not names:
            text = f"{digest} is not shared by this proxy"
            raise RegistryError(403, "DENIED", text, reason=ErrorReason.NOT_SHARED)
        active = self._taken_up(digest, size_bytes)
        if self._manifests.links.made_of(digest) is not None and not active.complete:
            text = f"{digest} was made here, and is gone"
            raise RegistryError(404, "BLOB_UNKNOWN", text, reason=ErrorReason.NO_SOURCE)
        starts = not active.complete and not self.obtaining.runs(digest)
        paid = self.obtaining.ask(active) if starts else 0.0
        if (bulk or budget is not None) and not active.complete:
            active.order_bulk(budget)
        self.arrives(active)
        if starts:
            self._start(active, names, frozenset(), paid)
        return active

    def _taken_up(self, digest: Digest, size_bytes: int) -> ActiveBlob:
        proven = self._manifests.proven(digest)
        size_bytes = size_bytes if proven is None else proven
        active = self._node.actives.get(digest)
        free = active is not None and not self.obtaining.runs(digest)
        if active is not None and free and _outdated(active, size_bytes):
            self._node.give_up(active, f"claimed to have {size_bytes} bytes")
        return self._node.activate(digest, size_bytes)

    def _start(
        self,
        active: ActiveBlob,
        names: Sequence[ImageName],
        tried: frozenset[int],
        paid: float = 0.0,
    ) -> None:
        """`tried`: the sizes with which this was in vain."""
        digest, size_bytes = active.digest, active.geometry.size_bytes
        origin = Origin(
            names,
            self._source,
            digest,
            refuted=lambda name, actual: self._refuted(name, digest, size_bytes, actual),
            delivered=lambda name: self._manifests.links.delivered(name.upstream, digest),
            introduce=partial(self._introduce, digest, names) if self._parents else None,
        )
        tried |= {size_bytes}
        self.obtaining.start(
            active, origin, paid=paid, over=lambda: self._try_another_claim(active, tried)
        )

    def _try_another_claim(self, active: ActiveBlob, tried: frozenset[int]) -> None:
        """Those who still wait named no repository: what others claim of the blob is as good."""
        if active.failure is None or not active.core.wishes():
            return
        for claim in self._large_claims(active.digest):
            if claim.size_bytes not in tried:
                fresh = self._taken_up(active.digest, claim.size_bytes)
                self._start(fresh, claim.names, tried)
                return

    def _refuted(
        self, name: ImageName, digest: Digest, claimed_bytes: int | None, actual_bytes: int | None
    ) -> None:
        """The registry of `name` sends a body of another length than `name` claims."""
        logs.event(
            log, logging.WARNING, "size.refuted",
            digest=digest, image=str(name), claimed=claimed_bytes, actual=actual_bytes,
        )  # fmt: skip
        if claimed_bytes is not None:
            self._manifests.links.refute(name, digest, claimed_bytes, actual_bytes)

    async def _introduce(
        self, digest: Digest, names: Sequence[ImageName], timeout_s: float
    ) -> bool:
        """Tell the owner among the parents where a blob lies; False when none has it to give."""

        async def introduced(client: ProxyClient) -> bool | None:
            for name in names:
                try:
                    await client.introduce(name, digest, timeout_s=timeout_s)
                except P2pdistError as error:
                    logs.event(log, logging.INFO, "parent.refused", error=str(error))
                else:
                    return True
            return None

        links = self._node.proxy_links
        clients = await links.clients(digest)
        return await links.answering.first_of(clients, introduced, direct=True) or False

    # --- blobs of one chunk ---------------------------------------------------------------------

    async def small(self, digest: Digest) -> SmallAnswer | None:
        """Return a whole small blob or manifest that some served repository named."""
        names = self._small_names(digest)
        found = await self._small_of(digest, names, first_as_blob=False) if names else None
        return found if isinstance(found, SmallAnswer) else None

    async def small_for(
        self, name: ImageName, digest: Digest, *, by_itself: bool = False
    ) -> SmallAnswer:
        """The same for one repository, whose registry is the first to be asked, or, `by_itself`,
        the only one. Raises RegistryError with what it said."""
        said: WhyNot = {}
        if by_itself:
            try:
                return SmallAnswer("", await self._read_small(name, digest), UPSTREAM)
            except RegistryError as error:
                said = {name: error}
        elif names := self._small_names(digest):
            if name in names:
                names.sort(key=lambda n: n != name)
            found = await self._small_of(digest, names, first_as_blob=True)
            if isinstance(found, SmallAnswer):
                return found
            said = found
        # What other registries said is nothing to whoever asked for this one.
        raise said.get(name) or _no_source(name, digest)

    def _small_names(self, digest: Digest) -> list[ImageName]:
        where = self._manifests.access.where(digest)
        return [name for name in where if self._may_be_small(name, digest)]

    async def _small_of(
        self, digest: Digest, names: Sequence[ImageName], *, first_as_blob: bool
    ) -> SmallAnswer | WhyNot:
        return await self._smalls.run(
            digest, lambda: self._small(digest, names, first_as_blob=first_as_blob)
        )

    def _may_be_small(self, name: ImageName, digest: Digest) -> bool:
        """What is known to have several chunks has a map, and nobody gets it as a whole."""
        size = self._manifests.links.claim(name, digest)
        return self._manifests.is_manifest(digest) or size is None or geometry_for(size).single

    async def _small(
        self, digest: Digest, names: Sequence[ImageName], *, first_as_blob: bool
    ) -> SmallAnswer | WhyNot:
        """An index may list layers, and over the exchange nobody says which of both is asked for:
        what its registry does not have as the one it may have as the other."""
        if (found := await self._node.smalls.fetch(digest)) is not None:
            return found
        ways = [self._as_blob]
        if self._manifests.is_manifest(digest):
            ways.insert(1 if first_as_blob else 0, self._as_manifest)
        said: dict[ImageName, RegistryError] = {}
        for name in names:
            for way in ways:
                try:
                    return await way(name, digest)
                except RegistryError as error:
                    said.setdefault(name, error)
        return said

    async def _as_manifest(self, name: ImageName, digest: Digest) -> SmallAnswer:
        manifest = await self._manifests.by_digest(name, digest)
        return SmallAnswer(manifest.media_type, manifest.body, manifest.source)

    async def _as_blob(self, name: ImageName, digest: Digest) -> SmallAnswer:
        size = self._manifests.links.claim(name, digest)
        if size is not None and not geometry_for(size).single:
            raise _no_source(name, digest)
        answer = SmallAnswer("", await self._read_small(name, digest), UPSTREAM)
        await self._node.smalls.keep(digest, answer)
        return answer

    async def _read_small(self, name: ImageName, digest: Digest) -> bytes:
        """Read it from its registry; raise RegistryError with what came instead."""
        try:
            body = await read_single(self._source, name, digest)
        except NotSmall as error:
            claimed_bytes = self._manifests.links.claim(name, digest)
            self._refuted(name, digest, claimed_bytes, error.size_bytes)
            raise blob_refusal(error, name.upstream) from None
        except UpstreamError as error:
            raise blob_refusal(error, name.upstream) from error
        self._node.counters.received[UPSTREAM] += len(body)
        self._manifests.links.delivered(name.upstream, digest)
        return body


def _no_source(name: ImageName, digest: Digest) -> RegistryError:
    text = f"no source for {digest}"
    return refusals.blob_refusal(ErrorReason.NO_SOURCE, name.upstream, text)


def _outdated(active: ActiveBlob, size_bytes: int) -> bool:
    """`active` was taken up with another size, and no seal proves that one."""
    proven = active.map is not None and active.map.sealed
    return active.geometry.size_bytes != size_bytes and not proven
