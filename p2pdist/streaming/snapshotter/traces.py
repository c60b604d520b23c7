"""What containers read of a layer when they start: recorded in the process that reads; its daemon
passes traces on (`tracing`), and `streaming/ahead.py` brings what they name."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.oci.traces import encode_trace
from p2pdist.streaming.core.policy import TRACE_UNIT_BYTES

RECORD_S: Final = 30.0
"""From the first read of a layer on: what is read later is work, not start."""


class Recorder:
    """Of one layer. For any thread."""

    def __init__(self, path: Path, clock: Callable[[], float]) -> None:
        """`path`: where the trace is put when it is over. `clock`: monotonic, in seconds."""
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        self._units: dict[int, None] = {}
        self._ends_s: float | None = None
        self._over = False

    def read(self, start: int, stop: int) -> None:
        """These bytes of the archive are read."""
        if self._over:
            return
        with self._lock:
            if self._ends_s is None:
                self._ends_s = self._clock() + RECORD_S
            for unit in range(start // TRACE_UNIT_BYTES, -(-stop // TRACE_UNIT_BYTES)):
                if len(self._units) < TRACE_UNITS_MAX:
                    self._units[unit] = None

    def end(self) -> None:
        """Write the trace if its time is over; called now and then."""
        with self._lock:
            if self._over or self._ends_s is None or self._clock() < self._ends_s:
                return
            self._over = True
        # Into a directory that is there: one of a removed layer must not come back for this.
        scratch = self._path.with_suffix(".new")
        with contextlib.suppress(OSError):
            scratch.write_bytes(encode_trace(list(self._units)))
            scratch.replace(self._path)
