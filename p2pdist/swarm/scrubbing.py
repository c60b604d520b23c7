"""Hashes stored blobs again and again at a bounded rate, so that bit-rot is found before a read."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from p2pdist.errors import StoreError
from p2pdist.process import logs
from p2pdist.store.ports import StoredBlob
from p2pdist.swarm.node import Node

log = logging.getLogger(__name__)

STEP_BYTES: Final = 4 << 20
# A fleet that restarts has more urgent reads.
START_PAUSE_S: Final = 300.0
PASS_PAUSE_S: Final = 3600.0


async def scrub_for_ever(node: Node, bytes_per_s: int) -> None:
    """Pass over the store, whole blobs only, and again an hour later; 0: not at all."""
    await asyncio.sleep(START_PAUSE_S)
    while bytes_per_s:
        for blob in [blob for blob in node.store.blobs() if blob.complete]:
            await scrub_blob(node, blob, bytes_per_s)
        await asyncio.sleep(PASS_PAUSE_S)


async def scrub_blob(node: Node, blob: StoredBlob, bytes_per_s: float) -> None:
    """Hash one blob at `bytes_per_s`; a disk that cannot be read is said and passed over."""
    step = max(1, STEP_BYTES // blob.geometry.chunk_size_bytes)
    for first in range(0, blob.geometry.chunk_count, step):
        if node.store.get(blob.digest) is not blob:
            return  # evicted or replaced meanwhile
        stop = min(first + step, blob.geometry.chunk_count)
        blob.hold()
        try:
            await node.scrub(blob, first, stop)
        except StoreError as error:
            logs.event(log, logging.ERROR, "store.failed", digest=blob.digest, error=str(error))
            return
        finally:
            blob.release()
        await asyncio.sleep((stop - first) * blob.geometry.chunk_size_bytes / bytes_per_s)
