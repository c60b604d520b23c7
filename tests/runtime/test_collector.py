from __future__ import annotations

import subprocess
import sys

_SCRIPT = """
import gc
from p2pdist.runtime.collector import keep_pauses_short
keep_pauses_short()
frozen = gc.get_freeze_count()
looked_at = []
def on_collection(phase, info):
    if phase == "start" and info["generation"] == 2:
        looked_at.append(sum(gc.get_count()) and len(gc.get_objects()))
gc.callbacks.append(on_collection)
kept = [{"number": [number]} for number in range(400_000)]
assert gc.get_freeze_count() > frozen + 300_000, gc.get_freeze_count()
print(max(looked_at))
"""


def test_no_collection_looks_at_much_however_much_there_is() -> None:
    """In a process of its own: what is frozen stays so."""
    ran = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True
    )

    assert 0 < int(ran.stdout) < 100_000
