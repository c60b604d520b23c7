"""A tracker with a probe in its event loop: `python -m bench.scale.probed_tracker CONFIG OUT`.

OUT holds one JSON object: `lag_ms`, how late the loop ever was by the clock; `cpu_ms`, the most CPU
that one stay away from the probe took, which no other process of the machine adds to; `gc_ms`, the
longest collection. SIGUSR1 sets them to 0.
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from p2pdist.process import logs
from p2pdist.process.daemon import run_daemon
from p2pdist.settings import Settings
from p2pdist.settings_load import load_settings
from p2pdist.tracker.daemon import run

PROBE_S: Final = 0.002
WRITE_S: Final = 0.5


class Probe:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._collecting_s = 0.0
        self.reset()

    def reset(self) -> None:
        self.lag_ms = self.cpu_ms = self.gc_ms = 0.0

    def on_collection(self, phase: str, info: dict[str, Any]) -> None:
        now_s = time.monotonic()
        if phase == "start":
            self._collecting_s = now_s
        else:
            self.gc_ms = max(self.gc_ms, 1e3 * (now_s - self._collecting_s))

    async def watch(self) -> None:
        written_s = 0.0
        while True:
            began_s, cpu_s = time.monotonic(), time.thread_time()
            await asyncio.sleep(PROBE_S)
            now_s = time.monotonic()
            self.lag_ms = max(self.lag_ms, 1e3 * (now_s - began_s - PROBE_S))
            self.cpu_ms = max(self.cpu_ms, 1e3 * (time.thread_time() - cpu_s))
            if now_s - written_s > WRITE_S:
                written_s = now_s
                found = {"lag_ms": self.lag_ms, "cpu_ms": self.cpu_ms, "gc_ms": self.gc_ms}
                scratch = self._path.with_suffix(".tmp")
                scratch.write_text(json.dumps(found))
                scratch.rename(self._path)


async def _run(settings: Settings, path: Path, stop: asyncio.Event) -> None:
    probe = Probe(path)
    gc.callbacks.append(probe.on_collection)
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, probe.reset)
    async with asyncio.TaskGroup() as tasks:
        watching = tasks.create_task(probe.watch(), name="probe")
        await run(settings, stop)
        watching.cancel()


def main() -> None:
    settings = load_settings(Path(sys.argv[1])).settings
    logs.set_up(settings.log.level, settings.log.format, role="tracker")
    run_daemon(lambda stop: _run(settings, Path(sys.argv[2]), stop), on_uvloop=True)


if __name__ == "__main__":
    main()
