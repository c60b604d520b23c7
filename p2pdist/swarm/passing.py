"""A blob that passes through a host: from its registry to one client, checked and not kept."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing

from p2pdist.errors import UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import blob_refusal
from p2pdist.registry.ports import FileSpan
from p2pdist.swarm.counters import OTHER_SIZE
from p2pdist.swarm.fallback import OutsideSource, stream_checked


class PassingBlob:
    """Implements `BlobSource` for what no swarm is to bring: one works on the same digest with
    another size, or its registry decides by its callers."""

    def __init__(
        self,
        source: OutsideSource,
        name: ImageName,
        digest: Digest,
        size_bytes: int,
        used: Callable[[str, str, int], None],
        *,
        reason: str = OTHER_SIZE,
    ) -> None:
        """`used` hears of source, `reason` (of `counters.FALLBACK_REASONS`) and bytes."""
        self.digest = digest
        self.size_bytes = size_bytes
        self._source = source
        self._name = name
        self._used = used
        self._reason = reason

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        label, begun = self._source.label, False
        stream = stream_checked(
            self._source,
            self._name,
            self.digest,
            self.size_bytes,
            start=start,
            stop=stop,
            prefix=None,
            count=lambda nbytes: self._used(label, self._reason, nbytes),
        )
        try:
            async with aclosing(stream) as pieces:
                async for data in pieces:
                    begun = True
                    yield data
        except UpstreamError as error:
            if begun:
                raise
            raise blob_refusal(error.reason, self._name.upstream, str(error)) from error

    def close(self) -> None:
        """Nothing is held."""
