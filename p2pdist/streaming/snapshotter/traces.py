"""What containers read of a layer when they start: recorded where it is read, brought ahead where
it is known.

In the process that reads; its daemon passes traces on (`tracing`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.oci.traces import encode_trace
from p2pdist.streaming.span_reads import LayerSpans

UNIT_BYTES: Final = 1 << 20
RECORD_S: Final = 30.0
"""From the first read of a layer on: what is read later is work, not start."""
BROUGHT_AT_ONCE: Final = 1
"""Four took so much of two cores from the container that it started 0.2 s later than without any
(`make bench-lazy`, 50 MB/s without delay); one costs nothing there."""


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
            for unit in range(start // UNIT_BYTES, -(-stop // UNIT_BYTES)):
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


class Ahead:
    """Opens what is likely to be read, layer by layer, beside what is read. For any thread."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(BROUGHT_AT_ONCE, thread_name_prefix="expected")

    def bring(self, layer: LayerSpans, units: Sequence[int]) -> None:
        """Without waiting; nobody hears of a failure."""
        index, spans = layer.index, dict[int, None]()
        for unit in units:
            if unit * UNIT_BYTES < index.diff_bytes:
                first = index.span_at(unit * UNIT_BYTES)
                last = index.span_at(min((unit + 1) * UNIT_BYTES, index.diff_bytes) - 1)
                spans |= dict.fromkeys(range(first, last + 1))
        for number in spans:
            self._threads.submit(self._bring, layer, number)

    def _bring(self, layer: LayerSpans, number: int) -> None:
        with contextlib.suppress(OSError):
            layer.expect(number)
