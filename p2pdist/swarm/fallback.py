"""The rest of a body from outside of the swarm: never stored, never offered, checked as a whole.

Used when the swarm cannot go on (no source, full disk). Bytes up to the switch were verified
chunks; what follows is checked by the blob's digest, and the end of the body waits for that.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from p2pdist.errors import BlobFailed, ErrorReason, UpstreamError
from p2pdist.model.ids import Digest, digest_algorithm
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import DEFINITE
from p2pdist.registry.reading.net import BadAnswer
from p2pdist.store.ports import OpenData

# The tail that waits for the digest: as long as the smallest chunk.
HOLD_BACK_BYTES: Final = 256 * 1024
PREFIX_READ_BYTES: Final = 4 << 20


class OutsideBody(Protocol):
    """The rest of a blob that has `size_bytes` as a whole; None: the source did not say."""

    @property
    def size_bytes(self) -> int | None: ...

    def chunks(self) -> AsyncIterator[bytes]: ...

    def limit_buffer(self, nbytes: int) -> None:
        """Let the source send at most about `nbytes` ahead of what was read; not to be undone."""
        ...

    @property
    def arrived_bytes(self) -> int:
        """What has come to this host, read or not."""
        ...


class OutsideSource(Protocol):
    """A registry or a proxy that streams blobs by name; `label` is its counter label."""

    @property
    def label(self) -> str: ...

    def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AbstractAsyncContextManager[OutsideBody]: ...


def is_final(error: UpstreamError) -> bool:
    """Tell whether a source will say the same when it is asked again."""
    return error.reason in DEFINITE or isinstance(error, BadAnswer)


async def stream_checked(
    source: OutsideSource,
    name: ImageName,
    digest: Digest,
    size_bytes: int,
    *,
    start: int,
    stop: int,
    prefix: OpenData | None,
    count: Callable[[int], None],
) -> AsyncGenerator[bytes, None]:
    """Yield the bytes `start` to `stop` from `source`.

    `prefix`: what lies here, whose first `start` bytes are verified; without it they are fetched
    as well, because the digest needs it; so is what lies behind `stop`. Raises UpstreamError where
    the source gives out and BlobFailed when the whole does not have its digest; the last
    `HOLD_BACK_BYTES` before `stop` are held back until it has.
    """
    whole = hashlib.new(digest_algorithm(digest))
    have_prefix = start == 0 or prefix is not None
    if prefix is not None and start:
        await _hash_prefix(whole, prefix, start)
    at = start if have_prefix else 0
    held = bytearray()
    async with source.open_blob(name, digest, start=at) as body:
        if body.size_bytes not in (None, size_bytes):
            text = f"{digest} has {body.size_bytes} bytes there, {size_bytes} here"
            raise UpstreamError(text, reason=ErrorReason.REGISTRY_ERROR)
        async for data in body.chunks():
            count(len(data))
            await asyncio.to_thread(whole.update, data)
            begin, at = at, at + len(data)
            held += memoryview(data)[max(0, start - begin) : max(0, stop - begin)]
            if (ready := len(held) - HOLD_BACK_BYTES) > 0:
                yield bytes(held[:ready])
                del held[:ready]
    if at != size_bytes or whole.hexdigest() != digest.partition(":")[2]:
        raise BlobFailed(f"{digest}: the bytes from {source.label} do not have the digest")
    if held:
        yield bytes(held)


async def _hash_prefix(whole: hashlib._Hash, prefix: OpenData, stop: int) -> None:
    for offset in range(0, stop, PREFIX_READ_BYTES):
        data = await prefix.read(offset, min(PREFIX_READ_BYTES, stop - offset))
        await asyncio.to_thread(whole.update, data)
