"""Keeps Python's garbage collector from holding the event loop up.

A full collection looks at every object that lives: 0.46 s with 30,000 hosts of 50 blobs. And the
collector's own count of new objects is no measure: what dies elsewhere is taken off it, so that it
let 70,000 of them come together, 40 ms of work. So it is off here, and the young are looked at 20
times a second. What has lived through that and is much by now is frozen: no later collection looks
at it, and it goes, like nearly all of ours, when the last reference to it does. What would stay is
a cycle that was frozen and dropped then; hosts and their connections leave none
(`tests/tracker/test_garbage.py`), and while nobody comes nothing is frozen.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from p2pdist.process.tasks import TaskOwner

# 5,000 hosts that come within a second are 3,500 objects each time: about 2 ms.
SWEEP_S: Final = 0.05
# About 4 ms.
FREEZE_OBJECTS: Final = 10_000


@asynccontextmanager
async def short_pauses() -> AsyncIterator[None]:
    """For as long as the block lasts; of use where millions of objects live long, in a process that
    has one event loop and no other work."""
    gc.collect()  # of what the imports left
    gc.freeze()
    gc.disable()
    tasks = TaskOwner("collector")
    tasks.start(_sweep_for_ever(), name="sweep")
    try:
        yield
    finally:
        await tasks.close()
        gc.enable()


async def _sweep_for_ever() -> None:
    while True:
        await asyncio.sleep(SWEEP_S)
        sweep()


def sweep() -> None:
    """Look at what is new since the last time."""
    gc.collect(0)
    if len(gc.get_objects(generation=1)) >= FREEZE_OBJECTS:
        gc.collect(1)
        gc.freeze()
