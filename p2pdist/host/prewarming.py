"""Carries out prewarm orders at a peer or a proxy: fetches ahead of need, pins, proves, reports.

What lies here already is not fetched; what several orders want is fetched once. All of it is bulk:
whatever a runtime waits for goes first (`swarm/core/bulk.py`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal, Protocol

from p2pdist.control.core.orders import PrewarmOrder
from p2pdist.errors import ErrorReason, P2pdistError, RegistryError, StoreError
from p2pdist.host.runtime_pull import RuntimePuller, RuntimePullError
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.control import (
    BlobRef,
    Prewarm,
    PrewarmEnd,
    PrewarmImage,
    PrewarmReport,
    Proof,
    Prove,
    digest_key,
    tag_swarm_key,
)
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import canonical_upstream, image_name, valid_tag
from p2pdist.process import logs
from p2pdist.process.metrics import Sample
from p2pdist.store.ports import Part
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.core.bulk import bulk_bucket, set_bulk_rate
from p2pdist.swarm.node import Node
from p2pdist.swarm.turns import Turns

log = logging.getLogger(__name__)

# More make none of them faster, and the swarm of each thinner.
BLOBS_AT_ONCE: Final = 4
# A proof reads 1 MiB at most.
PROOFS_AT_ONCE: Final = 4
# No byte for so long, with nothing holding it back: nobody has it.
STUCK_S: Final = 60.0
LOOK_S: Final = 1.0
# What a host shows at a time, in layers: more are asked for again.
FILLS_MAX: Final = 4096
FILL_PRIORITY: Final = -1000
"""Below that of any order (`replicate.priority` and `prewarm --priority` end at -100)."""
# One order for each job that a tracker runs; the oldest that are over are forgotten.
ORDERS_MAX: Final = 256

_DENIALS: Final = frozenset(
    {
        ErrorReason.NOT_LISTED,
        ErrorReason.NOT_SHARED,
        ErrorReason.CREDENTIALS,
        ErrorReason.CALLER,
        ErrorReason.DENIED,
    }
)
"""Not the status, which is 404 for all that keeps a blob away."""

Code = Literal["", "no_space", "not_found", "denied", "runtime", "error"]
State = Literal["fetching", "fetched", "failed"]


class OrderSource(Protocol):
    """Where a host gets the parts of an image from."""

    async def manifest(self, name: ImageName, reference: str) -> None:
        """Have a manifest here, and what its tag stands for. Raises RegistryError."""

    async def small(self, name: ImageName, digest: Digest, size: int) -> None:
        """Have a blob of one chunk here. Raises RegistryError with the reason why not."""

    def begin(
        self, name: ImageName, digest: Digest, size: int, budget: TokenBucket | None
    ) -> ActiveBlob:
        """Fetch a larger one as bulk."""

    def look(self, name: ImageName, active: ActiveBlob) -> None:
        """It does not come (yet): look further for it. Called every second."""


class OrderRefused(Exception):
    """Why an order is not carried out, as the job's operator is told."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class _Entry:
    """One order and how far it is."""

    def __init__(self, order: Prewarm) -> None:
        self.order = order
        self.state: State = "fetching"
        self.budget: TokenBucket | None = None
        self.digests = {ref.digest for image in order.images for ref in image.blobs}
        self.fetching: dict[Digest, ActiveBlob] = {}
        self.task: asyncio.Task[None] | None = None


class Prewarmer:
    def __init__(
        self,
        node: Node,
        source: OrderSource,
        runtime: RuntimePuller | None,
        *,
        fill_rate: int = 0,
    ) -> None:
        """`fill_rate`: bytes/s of all that `fill` brings; 0: no limit."""
        self._node = node
        self._source = source
        self._runtime = runtime
        self._entries: dict[str, _Entry] = {}
        self._turns = Turns(BLOBS_AT_ONCE)
        self._proving = asyncio.Semaphore(PROOFS_AT_ONCE)
        self._fills = _Entry(Prewarm("", [], priority=FILL_PRIORITY))
        self._fills.budget = self._budget(fill_rate)

    def take(self, message: PrewarmOrder) -> None:
        """What the tracker says; never waits."""
        match message:
            case Prewarm():
                self._take_order(message)
            case PrewarmEnd(job, unpin):
                self._end(job, unpin=unpin)
            case Prove():
                self._node.tasks.start(self._prove(message), name="prove")

    def budget_of(self, digest: Digest) -> TokenBucket | None:
        """The rate of an order that is to fetch a blob, also where its turn has not come yet."""
        for entry in self._entries.values():
            if entry.state == "fetching" and digest in entry.digests:
                return entry.budget
        return None

    def fill(self, name: ImageName, digest: Digest, size: int) -> bool:
        """Have a blob here in time, behind all orders; whether it is. Never waits."""
        if self._held(digest):
            return True
        waiting = self._fills.digests
        if digest not in waiting and len(waiting) < FILLS_MAX:
            waiting.add(digest)
            self._node.tasks.start(self._fill(name, digest, size), name=f"fill {digest[:19]}")
        return False

    def samples(self) -> Iterable[Sample]:
        counts = Counter([entry.state for entry in list(self._entries.values())])
        name, text = "p2pdist_prewarm_orders", "Prewarm orders at this host, by state."
        for state in ("fetching", "fetched", "failed"):
            yield Sample(name, "gauge", text, {"state": state}, counts[state])
        name, text = "p2pdist_pinned_bytes", "Bytes of the store that nothing evicts."
        yield Sample(name, "gauge", text, {}, self._node.store.pinned_bytes())

    def status(self) -> dict[str, dict[str, int]]:
        counts = Counter(entry.state for entry in self._entries.values())
        return {"prewarm_orders": {state: counts[state] for state in sorted(counts)}}

    # --- orders ---------------------------------------------------------------------------------

    def _take_order(self, order: Prewarm) -> None:
        entry = self._entries.get(order.job)
        if entry is not None and entry.task is not None and not entry.task.done():
            if entry.order.images == order.images:
                self._change_rate(entry, order)
                return
            entry.task.cancel()
        entry = _Entry(order)
        entry.budget = self._budget(order.rate_bytes_per_s)
        self._entries.pop(order.job, None)
        self._entries[order.job] = entry
        self._forget_old()
        entry.task = self._node.tasks.start(self._carry_out(entry), name=f"prewarm {order.job}")

    def _change_rate(self, entry: _Entry, order: Prewarm) -> None:
        """Go on with what is under way, at another rate."""
        entry.order, rate = order, order.rate_bytes_per_s
        if entry.budget is not None and rate:
            set_bulk_rate(entry.budget, rate, asyncio.get_running_loop().time())
            return
        entry.budget = self._budget(rate)
        for active in entry.fetching.values():
            active.order_bulk(entry.budget)

    @staticmethod
    def _budget(rate_bytes_per_s: int) -> TokenBucket | None:
        if not rate_bytes_per_s:
            return None
        return bulk_bucket(rate_bytes_per_s, asyncio.get_running_loop().time())

    def _forget_old(self) -> None:
        over = [job for job, entry in self._entries.items() if entry.state != "fetching"]
        for job in over[: max(0, len(self._entries) - ORDERS_MAX)]:
            del self._entries[job]

    def _end(self, job: str, *, unpin: bool) -> None:
        entry = self._entries.pop(job, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()
        if unpin:
            self._node.tasks.start(self._unpin(job), name=f"unpin {job}")

    async def _unpin(self, job: str) -> None:
        try:
            await self._node.store.unpin(job)
        except StoreError as error:
            logs.event(log, logging.ERROR, "prewarm.unpin_failed", job=job, error=str(error))

    async def _carry_out(self, entry: _Entry) -> None:
        job = entry.order.job
        self._report(job, "fetching")
        try:
            check_order(entry.order)
            await self._fetch(entry)
            entry.state = "fetched"
            self._report(job, "fetched")
            if entry.order.into_runtime:
                await self._unpack(entry.order)
        except* (OrderRefused, P2pdistError) as group:
            code, reason = explain(group)
            entry.state = "failed"
            logs.event(log, logging.WARNING, "prewarm.failed", job=job, code=code, reason=reason)
            self._report(job, "failed", code, reason)

    def _report(
        self,
        job: str,
        state: Literal["fetching", "fetched", "unpacked", "failed"],
        code: Code = "",
        reason: str = "",
    ) -> None:
        self._node.tracker.tell(PrewarmReport(job, state, code, reason[:512]))

    async def _fetch(self, entry: _Entry) -> None:
        images = entry.order.images
        for image in images:
            await self._manifests(image)
        blobs = {
            parse_digest(ref.digest): (_name(image), ref) for image in images for ref in image.blobs
        }
        refs = [ref for _, ref in blobs.values()]
        async with self._reserved(entry.order, refs), asyncio.TaskGroup() as tasks:
            for digest, (name, ref) in blobs.items():
                tasks.create_task(self._blob(entry, name, digest, ref.size_bytes))

    async def _manifests(self, image: PrewarmImage) -> None:
        name = _name(image)
        for reference in (*([image.tag] if image.tag else []), *image.manifests):
            await self._source.manifest(name, reference)

    @asynccontextmanager
    async def _reserved(self, order: Prewarm, refs: list[BlobRef]) -> AsyncIterator[None]:
        """Pin what is to come and reserve the room for it, before a byte of it is fetched.

        Where only what is in use now stands in the way, each blob finds its room when it comes.
        """
        store = self._node.store
        large = {
            parse_digest(ref.digest): ref.size_bytes
            for ref in refs
            if not geometry_for(ref.size_bytes).single
        }
        small = [parse_digest(ref.digest) for ref in refs if geometry_for(ref.size_bytes).single]
        manifests = [parse_digest(d) for image in order.images for d in image.manifests]
        await store.pin(order.job, [*large, *small, *manifests], order.pin_until_unix_s)
        async with AsyncExitStack() as reserved:
            try:
                await reserved.enter_async_context(store.reserve(large))
            except StoreError as error:
                if not error.full:
                    raise
                needed = sum(size for digest, size in large.items() if store.get(digest) is None)
                room = await store.room()
                if needed > room:
                    await store.unpin(order.job)
                    raise OrderRefused(
                        "no_space", f"{_megabytes(needed)} are missing, {_megabytes(room)} fit"
                    ) from None
            yield

    async def _blob(self, entry: _Entry, name: ImageName, digest: Digest, size: int) -> None:
        if self._held(digest):
            return
        async with self._turns.turn(entry.order.priority):
            if geometry_for(size).single:
                await self._source.small(name, digest, size)
                return
            active = self._source.begin(name, digest, size, entry.budget)
            entry.fetching[digest] = active
            try:
                await self._arrival(name, active)
            finally:
                del entry.fetching[digest]
                others = (*self._entries.values(), self._fills)
                if not any(digest in other.fetching for other in others):
                    self._node.end_bulk(active)

    def _held(self, digest: Digest) -> bool:
        stored = self._node.store.get(digest)
        return self._node.store.has_small(digest) or (stored is not None and stored.complete)

    async def _fill(self, name: ImageName, digest: Digest, size: int) -> None:
        try:
            room = await self._node.store.room()
            if size > room:
                raise OrderRefused(
                    "no_space", f"{_megabytes(size)} are missing, {_megabytes(room)} fit"
                )
            await self._blob(self._fills, name, digest, size)
        except (OrderRefused, P2pdistError) as error:
            logs.event(log, logging.WARNING, "fill.failed", digest=digest, error=str(error))
        finally:
            self._fills.digests.discard(digest)

    async def _arrival(self, name: ImageName, active: ActiveBlob) -> None:
        began_s = asyncio.get_running_loop().time()
        while not active.complete:
            if (error := active.store_error) is not None:
                if error.full:
                    raise OrderRefused("no_space", f"the disk has no room for {active.digest}")
                raise error
            if active.failure is not None:
                raise OrderRefused("error", active.failure)
            waited_s = asyncio.get_running_loop().time() - began_s
            if min(waited_s, active.idle_s) > STUCK_S:
                raise OrderRefused(
                    "error", f"nobody sent any of {active.digest} for {STUCK_S:.0f} s"
                )
            self._source.look(name, active)
            await active.readers.wait_progress(LOOK_S)

    async def _unpack(self, order: Prewarm) -> None:
        if self._runtime is None:
            raise OrderRefused(
                "runtime", "this host lets no job into a runtime (peer.into_runtime)"
            )
        for image in order.images:
            try:
                await self._runtime.pull(image)
            except RuntimePullError as error:
                raise OrderRefused("runtime", str(error)) from None
        self._report(order.job, "unpacked")

    # --- proofs ---------------------------------------------------------------------------------

    async def _prove(self, asked: Prove) -> None:
        try:
            parts = [Part(parse_digest(p.digest), p.offset, p.length) for p in asked.parts]
        except ValueError:
            return
        async with self._proving:
            answer = await self._node.store.prove(parts, asked.key)
        self._node.tracker.tell(Proof(asked.seq, answer or b""))
        if answer is None:
            await self._say_lost()

    async def _say_lost(self) -> None:
        """Take back what we announced and is gone, as after somebody wiped the directory."""
        try:
            lost = await self._node.store.drop_lost()
        except StoreError as error:
            logs.event(log, logging.ERROR, "store.failed", error=str(error))
            return
        for digest in lost.smalls:
            self._node.tracker.note(digest_key(digest), 0, False)
        for key in lost.statements:
            self._node.tracker.note(tag_swarm_key(key), 0, False)
        if lost.blobs or lost.smalls or lost.statements:
            logs.event(
                log, logging.ERROR, "store.vanished",
                blobs=len(lost.blobs), smalls=len(lost.smalls), statements=len(lost.statements),
            )  # fmt: skip


def check_order(order: Prewarm) -> None:
    """Names and digests go into requests and into a runtime's command line. Raises OrderRefused."""
    try:
        for image in order.images:
            if canonical_upstream(image.upstream) != image.upstream:
                raise ValueError(f"not the name of a registry: {image.upstream[:80]!r}")
            image_name(image.upstream, image.repository)
            if image.tag and not valid_tag(image.tag):
                raise ValueError(f"not a tag: {image.tag[:80]!r}")
            if not image.manifests:
                raise ValueError("an image without a manifest")
            for digest in (*image.manifests, *(ref.digest for ref in image.blobs)):
                parse_digest(digest)
    except ValueError as error:
        raise OrderRefused("error", f"the order makes no sense: {error}") from None


def _name(image: PrewarmImage) -> ImageName:
    return ImageName(image.upstream, image.repository)


def explain(group: BaseExceptionGroup[Exception]) -> tuple[Code, str]:
    """The first failure of an order, as it is reported."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    match error:
        case OrderRefused(code=code):
            return code, str(error)
        case RegistryError(reason=reason) if reason in _DENIALS:
            return "denied", str(error)
        case RegistryError(reason=ErrorReason.UNKNOWN):
            return "not_found", str(error)
        case StoreError(full=True):
            return "no_space", str(error)
        case _:
            return "error", str(error)


def _megabytes(nbytes: int) -> str:
    return f"{max(0, nbytes) / 1e6:,.1f} MB"
