"""Makes the index of each layer that this proxy brings in, and publishes it for lazy reads.

An index is a blob like any other: it has a digest, is exchanged in chunks, and may go out wherever
its layer may. Which one belongs to a layer a proxy signs, in the form of a statement about a tag.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from random import Random
from typing import Final, Literal

from cachetools import LRUCache

from p2pdist.errors import P2pdistError
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.layer_index import INDEX_MEDIA_TYPE, INDEXED_BYTES_MIN, layer_index_key
from p2pdist.model.statements import Signer, TagStatement
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.process.metrics import Sample
from p2pdist.registry_proxy.core.access import Access
from p2pdist.registry_proxy.index_builds import NotBuilt, build_index
from p2pdist.registry_proxy.ingest import Ingest
from p2pdist.swarm.active import ActiveBlob
from p2pdist.swarm.fallback import OutsideBody
from p2pdist.swarm.node import Node
from p2pdist.swarm.smalls import SmallAnswer

log = logging.getLogger(__name__)

# One core at a time: 100 MB/s of gzip, more than most registries send.
BUILDS_AT_ONCE: Final = 1
# Those that wait; a job of a thousand images has as many layers. The rest is pulled as ever.
WAITING_MAX: Final = 4096
KNOWN_MAX: Final = 100_000
# What a layer holds does not change; how it is indexed may, and then the key is another.
LIFETIME_S: Final = 10 * 365 * 86_400

Result = Literal["built", "unfit", "failed", "skipped"]
RESULTS: Final[tuple[Result, ...]] = ("built", "unfit", "failed", "skipped")


class LayerIndexer:
    def __init__(self, node: Node, access: Access, signer: Signer, rng: Random) -> None:
        self._node = node
        self._access = access
        self._signer = signer
        self._rng = rng
        self._turn = asyncio.Semaphore(BUILDS_AT_ONCE)
        self._waiting: set[Digest] = set()
        self._known: LRUCache[Digest, None] = LRUCache(KNOWN_MAX)
        """Layers that have an index, or never get one."""
        self._results: Counter[Result] = Counter()
        self._indexed_bytes = 0
        self._index_bytes = 0

    def arrives(self, active: ActiveBlob) -> None:
        """A blob is brought in, or lies here: build its index, if it is a layer without one."""
        digest, size_bytes = active.digest, active.geometry.size_bytes
        if size_bytes < INDEXED_BYTES_MIN or digest in self._waiting or digest in self._known:
            return
        if "tar" not in self._access.links.media_type(digest):
            return
        if len(self._waiting) >= WAITING_MAX:
            self._results["skipped"] += 1
            return
        self._waiting.add(digest)
        self._node.tasks.start(self._index(active), name=f"index {digest[:19]}")

    async def keys_changed(self) -> None:
        """What was said of their indexes may not be believed any more."""
        self._known.clear()

    async def _index(self, active: ActiveBlob) -> None:
        try:
            if await self._node.smalls.held_statement(layer_index_key(active.digest)) is not None:
                self._known[active.digest] = None
                return
            async with self._turn:
                index = await build_index(active, lambda: self._in_motion(active))
            await self._publish(active.digest, index)
        except P2pdistError as error:
            self._not_built(active.digest, error)
        else:
            self._results["built"] += 1
            self._known[active.digest] = None
            self._indexed_bytes += active.geometry.size_bytes
            self._index_bytes += len(index)
            logs.event(
                log, logging.INFO, "index.built",
                digest=active.digest, bytes=active.geometry.size_bytes, index_bytes=len(index),
            )  # fmt: skip
        finally:
            self._waiting.discard(active.digest)

    def _in_motion(self, active: ActiveBlob) -> bool:
        return self._node.actives.get(active.digest) is active

    def _not_built(self, digest: Digest, error: P2pdistError) -> None:
        if isinstance(error, NotBuilt) and error.unfit:
            self._results["unfit"] += 1
            self._known[digest] = None
            logs.event(log, logging.INFO, "index.unfit", digest=digest, error=str(error))
        else:
            self._results["failed"] += 1
            logs.event(log, logging.WARNING, "index.failed", digest=digest, error=str(error))

    async def _publish(self, layer: Digest, index: bytes) -> None:
        """Keep it as a blob, then say whose it is. Raises P2pdistError."""
        digest = await asyncio.to_thread(digest_of, index)
        self._access.links.derive(digest, layer, len(index))
        if geometry_for(len(index)).single:
            await self._node.smalls.keep(digest, SmallAnswer(INDEX_MEDIA_TYPE, index))
        else:
            active = self._node.activate(digest, len(index))
            names = self._access.where(layer)
            if not names:
                raise NotBuilt("nobody may have it any more")
            ingest = Ingest(
                self._node, active, self._signer, _Made(index), names[:1], self._rng,
                alone=True, refuted=lambda name, actual_bytes: None,
            )  # fmt: skip
            await ingest.run()
            if not active.complete:
                raise NotBuilt(active.failure or "the store does not keep its index")
        issued_s, key = int(unix_s()), layer_index_key(layer)
        statement = TagStatement(
            key, digest, INDEX_MEDIA_TYPE, len(index), issued_s, issued_s + LIFETIME_S
        )
        await self._node.smalls.keep_statement(key, self._signer.sign(statement), index=True)

    def samples(self) -> Iterable[Sample]:
        for result in RESULTS:
            yield Sample(
                "p2pdist_layer_indexes_total", "counter",
                "Layers for lazy reads, by what became of their index.",
                {"result": result}, self._results[result],
            )  # fmt: skip
        for kind, nbytes in (("layer", self._indexed_bytes), ("index", self._index_bytes)):
            yield Sample(
                "p2pdist_layer_index_bytes_total", "counter",
                "Bytes of layers that got an index, and of those indexes.",
                {"kind": kind}, nbytes,
            )  # fmt: skip


class _Made:
    """A source for `Ingest` that has one body, made here; no counter counts it as received."""

    label: Final = ""

    def __init__(self, body: bytes) -> None:
        self._body = body

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        yield _MadeBody(self._body, start)


class _MadeBody:
    PIECE_BYTES: Final = 1 << 20

    def __init__(self, body: bytes, start: int) -> None:
        self._body = body
        self._start = start
        self.size_bytes: int | None = len(body)

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(self._start, len(self._body), self.PIECE_BYTES):
            yield self._body[at : at + self.PIECE_BYTES]

    def limit_buffer(self, nbytes: int) -> None:
        """All of it is here."""

    @property
    def arrived_bytes(self) -> int:
        return len(self._body)
