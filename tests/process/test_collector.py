from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import asyncio, gc, time, weakref
from p2pdist.process.collector import FREEZE_OBJECTS, short_pauses

class Cyclic:
    def __init__(self):
        self.me = self

async def main():
    looked_at, kept = [], []
    def on_collection(phase, info):
        if phase == "start":
            young = range(info["generation"] + 1)
            looked_at.append(sum(len(gc.get_objects(generation=g)) for g in young))
    async with short_pauses():
        frozen = gc.get_freeze_count()
        gone = weakref.ref(Cyclic())
        gc.callbacks.append(on_collection)
        for _ in range(40):
            kept += [[n] for n in range(5_000)]
            await asyncio.sleep(0.06)
        assert gone() is None
        assert gc.get_freeze_count() > frozen + 150_000, gc.get_freeze_count()
        gc.callbacks.remove(on_collection)
    assert gc.isenabled()
    print(max(looked_at))

asyncio.run(main())
"""


def test_no_collection_looks_at_much_however_much_there_is() -> None:
    """In a process of its own: what is frozen stays so."""
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )

    assert 0 < int(ran.stdout) < 50_000
