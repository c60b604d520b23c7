"""When bulk waits: readers of this node that wait for bytes, and bodies from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from p2pdist.swarm.core.blob_bulk import BlobBulk
from p2pdist.swarm.core.host import HostCore

# How soon a body from outside that was held back notices that somebody waits for it.
TURN_S: Final = 0.05


class BulkPorts(Protocol):
    core: HostCore

    def carry_out(self) -> None: ...


@contextmanager
def reader_waits(node: BulkPorts) -> Iterator[None]:
    """Bulk of this node is held back as long as the block lasts, and a moment longer."""
    loop = asyncio.get_running_loop()
    node.core.wait_began(loop.time())
    node.carry_out()
    try:
        yield
    finally:
        node.core.wait_ended(loop.time())


async def paced(
    node: BulkPorts, bulk: BlobBulk, nbytes: int, *, held_back: Callable[[float], None]
) -> None:
    """Return when `nbytes` more of a blob may be taken from outside: at once unless it is bulk.

    `held_back` is told for how many seconds they may not, as long as they may not.
    """
    loop = asyncio.get_running_loop()
    while (pace := bulk.pace) is not None:
        wait_s = pace.take(nbytes, loop.time())
        if not wait_s:
            pace.settled(nbytes, loop.time())
            bulk.received(nbytes)
            return
        held_s = min(wait_s, TURN_S)
        held_back(held_s)
        await asyncio.sleep(held_s)
    node.core.urgent_bytes(loop.time())
    node.carry_out()
