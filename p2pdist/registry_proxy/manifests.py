"""Manifests, sizes and lists for everybody behind this proxy.

A manifest is served to a repository that has it, and only there; what it points to is then linked
to that repository. Each tag is looked up once for all who wait.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol, TypeVar, assert_never

from p2pdist.errors import ErrorReason, PeerFault, RegistryError, StoreError, UpstreamError
from p2pdist.model.ids import Digest, TagKey, parse_digest, tag_key
from p2pdist.model.statements import Keyring, Signer, TagStatement, signer_of
from p2pdist.model.tags import (
    NotBelieved,
    TagRecord,
    age_at_hearing_s,
    believe_tag,
    open_tag,
)
from p2pdist.oci import refusals
from p2pdist.oci.doubts import Doubts
from p2pdist.oci.manifest import ManifestInfo, parse_manifest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.process.off_loop import parsed
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.kept_manifests import kept_type
from p2pdist.registry.ports import Asker, Manifest, PullContext, asker, client_accept, speaks_for
from p2pdist.registry.reading.client import (
    BadAnswer,
    UpstreamClient,
    UpstreamManifest,
    UpstreamRefusal,
)
from p2pdist.registry_proxy.asking import Asking, MissesSpent
from p2pdist.registry_proxy.budgets import BudgetSpent
from p2pdist.registry_proxy.core.access import Access
from p2pdist.registry_proxy.core.tags import Absent, Fresh, Revalidate, TagCache, TagEntry
from p2pdist.registry_proxy.core.verdicts import (
    blob_refusal,
    is_answer,
    manifest_refusal,
)
from p2pdist.registry_proxy.lists import ListService
from p2pdist.registry_proxy.parents import PARENT_S, Parent, Parents
from p2pdist.registry_proxy.showing import HeldPart, Showing
from p2pdist.swarm.core.links import Links
from p2pdist.swarm.counters import UPSTREAM, WAN

log = logging.getLogger(__name__)

T = TypeVar("T")

# 2 ms of the loop's time.
LINKS_AT_ONCE: Final = 1000
# Registry contract 3.7: 2 s, then the cached copy; the look-up goes on for the next who asks.
STALE_AFTER_S: Final = 2.0
# As long as stale answers are good for: no peer may believe a tag longer than we would serve it.
STATEMENT_LIFETIME_S: Final = 24 * 3600


class StoredSmall(Protocol):
    @property
    def media_type(self) -> str: ...

    @property
    def body(self) -> bytes: ...


class SmallStore(Protocol):
    """Where manifests and tag statements are kept."""

    async def get_small(self, digest: Digest) -> StoredSmall | None: ...

    async def put_small(self, digest: Digest, body: bytes, media_type: str = "") -> None: ...

    async def get_statement(self, key: TagKey) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Claim:
    """Repositories that say the same of a blob's size."""

    size_bytes: int
    names: list[ImageName]


class ManifestService:
    """Answers from the store, the parents, then upstream, in this order."""

    def __init__(
        self,
        upstream: UpstreamClient,
        store: SmallStore,
        signer: Signer,
        keyring: Keyring,
        *,
        parents: Sequence[Parent] = (),
        tags: TagCache | None = None,
        access: Access | None = None,
        asking: Asking | None = None,
        stale_after_s: float = STALE_AFTER_S,
        expiry_unix_s: Callable[[], float] = unix_s,
        proven: Callable[[Digest], int | None] = lambda _: None,
        held: HeldPart | None = None,
    ) -> None:
        """`keyring` says whose tag statements count: parents' and our own from before a restart.

        `proven`: the size of a blob that lies here sealed, which no claim overrules.
        `held`: bytes of a blob that lies here whole; by default of the small ones in `store`.
        `expiry_unix_s`: the clock by which statements end; we sign by our own.
        """
        self._upstream = upstream
        self._store = store
        self._signer = signer
        self._keyring = keyring
        self._parents = Parents(parents)
        self._tags: TagCache = tags if tags is not None else TagCache()
        self.access = access or Access(
            upstream.servable_hosts, Links(), callers=upstream.caller_hosts
        )
        self.links = self.access.links
        self._showing = Showing(self.access, upstream, held or self._held_small)
        self._asking = asking or Asking()
        self.lists = ListService(upstream, self._parents, self._asking, self.check_servable)
        self._stale_after_s = stale_after_s
        self._expiry_unix_s = expiry_unix_s
        self.proven = proven
        self._doubts = Doubts()
        self._lookups: SingleFlight[tuple[TagKey, Asker], Manifest] = SingleFlight("tag look-up")
        self._fetches: SingleFlight[tuple[ImageName, Digest, Asker], Manifest] = SingleFlight(
            "manifest"
        )
        self._sizes: SingleFlight[tuple[ImageName, Digest, Asker], int] = SingleFlight("blob size")
        self.stale_served_total = 0

    async def close(self) -> None:
        for flights in (self._lookups, self._fetches, self._sizes, self._showing):
            await flights.close()

    # --- what is known without asking -----------------------------------------------------------

    def claims(self, digest: Digest) -> list[Claim]:
        """What repositories that may be served say of its size, the latest first; a proof makes
        them agree."""
        proven = self.proven(digest)
        by_size: dict[int, list[ImageName]] = {}
        for name in self.access.where(digest):
            size = proven if proven is not None else self.links.claim(name, digest)
            if size is not None:
                by_size.setdefault(size, []).append(name)
        return [Claim(size, names) for size, names in by_size.items()]

    def is_manifest(self, digest: Digest) -> bool:
        return self.links.is_manifest(digest)

    # --- manifests ------------------------------------------------------------------------------

    async def manifest(self, name: ImageName, reference: str, context: PullContext) -> Manifest:
        """Return a manifest; raise RegistryError where upstream has none or says nothing."""
        self.check_servable(name)
        if ":" in reference:
            return await self._asked_by_digest(name, parse_digest(reference))
        began_s = self._now_s()
        try:
            return await self._by_tag(name, reference)
        finally:
            context.waited("manifest", self._now_s() - began_s)

    async def _asked_by_digest(self, name: ImageName, digest: Digest) -> Manifest:
        try:
            return await self.by_digest(name, digest)
        except RegistryError as error:
            if error.status == 404:
                self.missing(name, digest)
            raise

    def missing(self, name: ImageName, digest: Digest) -> None:
        """The registry has not what was asked for: if `name` named it, its tags are asked anew."""
        if self.links.allowed(name, digest):
            self._doubts.missing(name, self._now_s())

    async def by_digest(self, name: ImageName, digest: Digest) -> Manifest:
        """Return a manifest of `name`, from here if `name` is known to have it."""
        self.check_servable(name)
        if (kept := await self._kept_for(name, digest)) is not None:
            return kept
        flight = name, digest, asker()
        return await self._fetches.run(flight, lambda: self._fetch(name, digest))

    async def fresh(self, name: ImageName, tag: str) -> Manifest:
        """Return what the registry itself says of a tag now; raise RegistryError for no answer.

        For one who knows that the tag has moved: neither what we believe nor a parent counts.
        """
        self.check_servable(name)
        key = tag_key(name.upstream, name.repository, tag)
        try:
            return await self._ask_and_confirm(name, tag, key)
        except UpstreamError as error:
            refusal = _refusal(error, name.upstream)
            if is_answer(error):
                self._tags.refused(key, refusal, self._now_s())
            raise refusal from error

    async def _by_tag(self, name: ImageName, tag: str) -> Manifest:
        key = tag_key(name.upstream, name.repository, tag)
        decision = self._decide(name, key)
        if decision == Revalidate(None):
            await self._recall(key)
            decision = self._decide(name, key)
        match decision:
            case Absent(error):
                raise RegistryError(error.status, error.code, str(error), reason=error.reason)
            case Fresh(entry, stale):
                if (kept := await self._of_entry(entry, stale)) is not None:
                    return kept
                return await self._looked_up(name, tag, key)
            case Revalidate(old):
                return await self._revalidated(name, tag, key, old)
            case _:
                assert_never(decision)

    def _decide(self, name: ImageName, key: TagKey) -> Fresh | Revalidate | Absent:
        now_s, checked_s = self._now_s(), self._tags.checked_s(key)
        doubtful = checked_s is not None and self._doubts.doubtful(name, key, checked_s, now_s)
        decision = self._tags.decide(key, now_s, accepted=client_accept.get(), doubtful=doubtful)
        if isinstance(decision, Absent) or self._holds(decision.entry):
            return decision
        return Revalidate(None)

    def _holds(self, entry: TagEntry | None) -> bool:
        """No host takes the word of a key that is not believed any more."""
        return entry is not None and self._keyring.knows(signer_of(entry.statement))

    async def _revalidated(
        self, name: ImageName, tag: str, key: TagKey, old: TagEntry | None
    ) -> Manifest:
        """Look the tag up, but fall back on the old answer when that takes long."""
        if old is not None:
            try:
                async with asyncio.timeout(self._stale_after_s):
                    return await self._looked_up(name, tag, key)
            except TimeoutError:
                kept = await self._of_entry(old, "upstream is slow to answer")
                if kept is not None:
                    return kept
        return await self._looked_up(name, tag, key)

    async def _looked_up(self, name: ImageName, tag: str, key: TagKey) -> Manifest:
        flight = key, asker()
        return await self._lookups.run(flight, lambda: self._look_up(name, tag, key))

    async def _look_up(self, name: ImageName, tag: str, key: TagKey) -> Manifest:
        """Ask the parents, then upstream; an old answer stands in for silence."""

        async def ask() -> Manifest:
            told = await self._tag_from_parents(name, tag, key)
            return told or await self._ask_and_confirm(name, tag, key)

        try:
            return await (ask() if self._tags.known(key) else self._asking.outside(ask))
        except UpstreamError as error:
            return await self._without_answer(name, key, error)

    async def _ask_and_confirm(self, name: ImageName, tag: str, key: TagKey) -> Manifest:
        found = await self._ask_upstream(name, tag)
        entry = TagEntry(found.digest, self._now_s(), self._sign(key, found))
        self._tags.confirmed(key, entry)
        return replace(found, statement=entry.statement)

    async def _without_answer(self, name: ImageName, key: TagKey, error: UpstreamError) -> Manifest:
        refusal = _refusal(error, name.upstream)
        if is_answer(error):
            if speaks_for.get() is None:  # what one caller is told is nothing to another one
                self._tags.refused(key, refusal, self._now_s(), accepted=client_accept.get())
            raise refusal
        if isinstance(error, MissesSpent | BudgetSpent):
            raise refusal
        logs.event(log, logging.WARNING, "upstream.unanswered", image=str(name), error=str(error))
        old = self._tags.unanswered(key, str(error), self._now_s())
        usable = old is not None and self._holds(old)
        kept = await self._of_entry(old, str(error)) if old is not None and usable else None
        if kept is None:
            raise refusal
        return kept

    async def _ask_upstream(self, name: ImageName, tag: str) -> Manifest:
        """One HEAD; a GET only for what this repository has not delivered yet: a HEAD proves
        nothing, and would make anything that lies here readable under any name."""
        head = await self._upstream.head_manifest(name, tag)
        if head.digest and (kept := await self._kept_for(name, head.digest)) is not None:
            await self._learn(name, kept)
            return kept
        found = await self._upstream.get_manifest(name, head.digest or tag)
        return await self._keep(name, found)

    async def _fetch(self, name: ImageName, digest: Digest) -> Manifest:
        async def from_parent(parent: Parent) -> Manifest:
            told = await parent.manifest(name, digest, timeout_s=PARENT_S)
            return await self._keep(name, told, WAN)

        async def ask() -> Manifest:
            told = await self._parents.first(from_parent)
            return told or await self._keep(name, await self._upstream.get_manifest(name, digest))

        try:
            return await self._asking.outside(ask)
        except UpstreamError as error:
            raise _refusal(error, name.upstream) from error

    async def _tag_from_parents(self, name: ImageName, tag: str, key: TagKey) -> Manifest | None:
        """A parent's word on a tag counts with a live signature only, and is passed on as it is."""
        held = await self._held(key)

        async def from_parent(parent: Parent) -> Manifest:
            told = await parent.manifest(name, tag, timeout_s=PARENT_S)
            record = told.statement or b""
            try:
                stated = open_tag(self._keyring, key, record)
                believe_tag(stated, now_unix_s=self._expiry_unix_s(), held=held, digest=told.digest)
            except (PeerFault, NotBelieved) as error:
                raise BadAnswer(f"a parent's tag without a statement that holds: {error}") from None
            kept = await self._keep(name, told, WAN)
            self._tags.confirmed(key, TagEntry(kept.digest, self._now_s(), record))
            return replace(kept, statement=record, stale=told.stale)

        return await self._parents.first(from_parent)

    # --- blobs ----------------------------------------------------------------------------------

    async def blob_size(self, name: ImageName, digest: Digest) -> int:
        """Return a blob's size in bytes, if `name` has it; raise RegistryError if not.

        Until the blob lies here it is what `name` claims, and no other repository.
        """
        self.check_servable(name)
        if (layer := self.links.made_of(digest)) is not None:
            await self.blob_size(name, layer)  # who may have that may have what was made of it
        size = await self._known_size(name, digest)
        if size is None:
            size = await self._sizes.run(
                (name, digest, asker()), lambda: self._ask_size(name, digest)
            )
        if layer is None and await self._showing.refuses(name, digest, size):
            text = f"{name.upstream} does not show {digest}"
            raise RegistryError(404, "BLOB_UNKNOWN", text, reason=ErrorReason.NO_SOURCE)
        return size

    async def _known_size(self, name: ImageName, digest: Digest) -> int | None:
        if not self.links.allowed(name, digest):
            return None
        here = await self._size_here(digest)
        return self.links.claim(name, digest) if here is None else here

    async def _held_small(self, digest: Digest, start: int, count: int) -> bytes | None:
        small = await self._store.get_small(digest)
        return None if small is None else small.body[start : start + count]

    async def _size_here(self, digest: Digest) -> int | None:
        if (size := self.proven(digest)) is not None:
            return size
        small = await self._store.get_small(digest)
        return None if small is None else len(small.body)

    async def _ask_size(self, name: ImageName, digest: Digest) -> int:
        async def ask() -> int:
            told = await self._parents.first(
                lambda p: p.introduce(name, digest, timeout_s=PARENT_S)
            )
            return told if told is not None else await self._upstream.blob_size(name, digest)

        try:
            size = await self._asking.outside(ask)
        except UpstreamError as error:
            raise blob_refusal(error, name.upstream) from error
        self.links.tell(name, digest, size)
        here = await self._size_here(digest)
        return size if here is None else here

    # --- keeping --------------------------------------------------------------------------------

    async def _keep(
        self, name: ImageName, found: UpstreamManifest | Manifest, source: str = UPSTREAM
    ) -> Manifest:
        """Store and link a verified manifest; raise ValueError for a body that is none."""
        manifest = Manifest(found.digest, found.media_type, found.body, source=source)
        await self._learn(name, manifest)
        self.links.delivered(name.upstream, found.digest)
        try:
            await self._store.put_small(found.digest, found.body, found.media_type)
        except StoreError as error:  # served all the same: a full disk makes us a pass-through
            logs.event(log, logging.WARNING, "manifest.not_kept", error=str(error))
        return manifest

    async def _learn(self, name: ImageName, found: Manifest) -> None:
        info = await parsed(lambda body: parse_manifest(body, found.media_type), found.body)
        if info.skipped:
            logs.event(
                log, logging.WARNING, "manifest.odd_descriptors",
                image=str(name), digest=found.digest, skipped=info.skipped,
            )  # fmt: skip
        self.links.tell(
            name,
            found.digest,
            len(found.body),
            media_type=found.media_type,
            is_manifest=True,
        )
        await self._link(name, info)

    async def _link(self, name: ImageName, info: ManifestInfo) -> None:
        """An index of 10,000 entries takes the loop's time in pieces of a few milliseconds."""
        for count, _ in enumerate(self.links.linking(name, info), 1):
            if count % LINKS_AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _kept(self, digest: Digest) -> Manifest | None:
        kept = await self._store.get_small(digest)
        media_type = None if kept is None else await kept_type(kept.body, kept.media_type)
        if kept is None or media_type is None:
            return None
        return Manifest(digest, media_type, kept.body)

    async def _kept_for(self, name: ImageName, digest: Digest) -> Manifest | None:
        """The manifest that lies here, if it may go out under `name` without a question."""
        if not self.links.allowed(name, digest) or self.access.must_show(name, digest):
            return None
        return await self._kept(digest)

    async def _of_entry(self, entry: TagEntry, stale: str | None) -> Manifest | None:
        kept = await self._kept(entry.digest)
        if kept is None:
            return None
        if stale is not None:
            self.stale_served_total += 1
        return replace(kept, statement=entry.statement, stale=stale)

    async def _recall(self, key: TagKey) -> None:
        """Take in what was known of a tag before a restart: its statement lies in the store."""
        held = await self._held(key)
        if held is None:
            return
        now_unix_s = self._expiry_unix_s()
        try:
            believe_tag(held, now_unix_s=now_unix_s)
        except NotBelieved:
            return
        checked_s = self._now_s() - age_at_hearing_s(held, now_unix_s)
        self._tags.recall(key, TagEntry(held.statement.digest, checked_s, held.record))

    async def _held(self, key: TagKey) -> TagRecord | None:
        """The last that was said of a tag here, alive or not, by a key that still counts."""
        record = await self._store.get_statement(key)
        if record is None:
            return None
        try:
            return open_tag(self._keyring, key, record)
        except (PeerFault, NotBelieved):
            return None

    def _sign(self, key: TagKey, found: Manifest) -> bytes:
        issued_s = int(unix_s())
        return self._signer.sign(
            TagStatement(
                key=key,
                digest=found.digest,
                media_type=found.media_type,
                size_bytes=len(found.body),
                issued_at_s=issued_s,
                expires_at_s=issued_s + STATEMENT_LIFETIME_S,
            )
        )

    def check_servable(self, name: ImageName) -> None:
        """What we can read with an account is not for everybody, unless the operator says so."""
        if not self.access.may_serve(name):
            text = f"{name.upstream} is not shared by this proxy"
            if self.access.by_caller(name):
                text = (
                    f"{name.upstream} is read with the credentials of each caller, and nobody "
                    "calls here"
                )
            raise refusals.refusal(ErrorReason.NOT_SHARED, name.upstream, text)

    @staticmethod
    def _now_s() -> float:
        return asyncio.get_running_loop().time()


def _refusal(error: UpstreamError, registry: str) -> RegistryError:
    code = error.code if isinstance(error, UpstreamRefusal) else ""
    return manifest_refusal(error, registry, code)
