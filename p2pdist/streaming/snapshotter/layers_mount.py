"""The mount at which all layers of a host are shown; it outlives the snapshotter."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pdist.process import logs
from p2pdist.process.files import write_whole
from p2pdist.streaming.fuse import mounting
from p2pdist.streaming.fuse.mounting import MountOptions
from p2pdist.streaming.snapshotter.worker import MIRROR_NAME

log = logging.getLogger(__name__)

WORKER: Final = "p2pdist.streaming.snapshotter.worker"
LOG_NAME: Final = "mnt.log"


class LayersMount:
    """Blocking; for one thread at a time."""

    def __init__(self, root: Path, endpoint: str) -> None:
        self.path = root / "mnt"
        self._root = root
        self._endpoint = endpoint

    def begin(self) -> None:
        """Mount, or take over what an earlier run mounted: its worker is replaced by one of this
        version, which reads where the mirror is now. Raises CannotMount, OSError."""
        write_whole(self._root / MIRROR_NAME, f"{self._endpoint}\n".encode())
        if not self.answers():
            self.ensure()
            return
        for pid in self._workers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def ensure(self) -> None:
        """Mount again what has ended: who used it has lost it, and others can go on. Raises
        CannotMount, OSError."""
        if self.answers():
            return
        options = MountOptions(log=self._root / LOG_NAME)
        mounted = mounting.mount(self._worker(), self.path, options)
        logs.event(log, logging.INFO, "layers.mounted", path=str(mounted.path))

    def have_read(self, number: int) -> None:
        """Return when a layer's index is read: its first reader would wait for that."""
        with suppress(OSError):  # who reads it hears of it
            os.stat(self.path / str(number))

    def answers(self) -> bool:
        """Whether it is mounted, and by a process that lives."""
        try:
            os.statvfs(self.path)
        except OSError:
            return False
        return os.path.ismount(self.path)

    def _workers(self) -> list[int]:
        """The processes that answer it; one, or none between two."""
        found, mine = [], [os.fsencode(word) for word in self._worker()[1:]]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                    if words[1 : len(mine) + 1] == mine:
                        found.append(int(entry.name))
        return found

    def _worker(self) -> list[str]:
        return [sys.executable, "-P", "-m", WORKER, str(self._root)]
