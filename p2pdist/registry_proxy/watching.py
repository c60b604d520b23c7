"""Looks at a blob in motion for a core that decides, and wakes when there is something new."""

from __future__ import annotations

import asyncio

from p2pdist.exchange.link import Link
from p2pdist.registry_proxy.core.following import BlobView
from p2pdist.swarm.active import ActiveBlob


def now_s() -> float:
    """The clock of all cores."""
    return asyncio.get_running_loop().time()


def view_of(active: ActiveBlob) -> BlobView:
    return BlobView(
        complete=active.complete,
        failed=active.failure is not None,
        prefix_chunks=active.prefix_chunks,
        held_chunks=held_chunks(active),
        idle_s=active.idle_s,
    )


def held_chunks(active: ActiveBlob) -> int:
    return len(active.blob.verified) if active.blob is not None else 0


async def changed(active: ActiveBlob, until_s: float | None, link: Link | None = None) -> None:
    """Return when the first chunk that lacks has come, the blob is whole or has failed, `link` has
    ended, or at `until_s`; sometimes earlier."""
    assert until_s is not None, "a core that waits has a deadline"
    timeout_s = max(0.0, until_s - now_s())
    if link is None:
        await active.readers.wait_progress(timeout_s)
        return
    async with asyncio.TaskGroup() as group:
        progress = group.create_task(active.readers.wait_progress(timeout_s))
        waits = [progress, group.create_task(link.wait_closed())]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
