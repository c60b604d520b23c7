"""Has registries show that they have a blob that lies here and came by another one's account."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from p2pdist.errors import UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry_proxy.core.access import Access

log = logging.getLogger(__name__)

# From a place that nobody can know before: who has not the blob has not these bytes.
PART_BYTES: Final = 64 << 10

HeldPart = Callable[[Digest, int, int], Awaitable[bytes | None]]
"""`count` bytes at `start` of a blob that lies here whole; None where it does not."""


class PartSource(Protocol):
    async def blob_part(self, name: ImageName, digest: Digest, start: int, count: int) -> bytes: ...


class Showing:
    """One question per registry and blob, however many wait for it; what was shown is kept."""

    def __init__(self, access: Access, source: PartSource, held: HeldPart) -> None:
        self._access = access
        self._source = source
        self._held = held
        self._flights: SingleFlight[tuple[str, Digest], bool] = SingleFlight("shown")

    async def close(self) -> None:
        await self._flights.close()

    async def refuses(self, name: ImageName, digest: Digest, size_bytes: int) -> bool:
        """Whether a blob that lies here may not go out under `name`, as its registry does not show
        that it has the same. False also while it does not lie here: there is nothing to give."""
        if not self._access.must_show(name, digest):
            return False
        key = name.upstream, digest
        return await self._flights.run(key, lambda: self._ask(name, digest, size_bytes))

    async def _ask(self, name: ImageName, digest: Digest, size_bytes: int) -> bool:
        start = secrets.randbelow(max(1, size_bytes - PART_BYTES + 1))
        count = min(PART_BYTES, size_bytes - start)
        ours = await self._held(digest, start, count)
        if ours is None:
            return False
        try:
            theirs = await self._source.blob_part(name, digest, start, count)
        except UpstreamError as error:
            logs.event(log, logging.INFO, "blob.not_shown", image=str(name), error=str(error))
            return True
        if not await asyncio.to_thread(secrets.compare_digest, ours, theirs):
            logs.event(log, logging.WARNING, "blob.not_shown", image=str(name), error="other bytes")
            return True
        self._access.links.delivered(name.upstream, digest)
        return False
