"""Lines for a pipe that perhaps nobody reads: whoever logs never waits for it.

A supervisor that hangs leaves 64 KiB in the pipe of our stderr, and the next write to it would stop
the event loop for good. So one thread writes, what waits for it is bounded, and what does not fit
is counted and left out.
"""

from __future__ import annotations

import io
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

QUEUE_BYTES_MAX: Final = 1 << 20
# At our end a reader that takes nothing for so long, or not all in so long, gets no more.
STALLED_S: Final = 1.0
FLUSH_S: Final = 5.0


class LineWriter:
    """Lines go out in their order. When there is no room the newest are left out, until half of
    the queue is free again; `said_dropped` makes the line that says how many, in their place."""

    def __init__(
        self,
        fd: int,
        said_dropped: Callable[[int], bytes],
        *,
        queue_bytes_max: int = QUEUE_BYTES_MAX,
        thread_name: str = "log",
    ) -> None:
        self.dropped_total = 0
        self._fd = fd
        self._said_dropped = said_dropped
        self._queue_bytes_max = queue_bytes_max
        # Reentrant: a collection of garbage may warn of something while a line is put.
        self._changed = threading.Condition(threading.RLock())
        self._lines: deque[tuple[int, bytes]] = deque()  # dropped before it; the line
        self._queue_bytes = 0
        self._unsaid = 0
        self._taken = 0
        self._closed = False
        # A daemon: one that is stuck in a write must not keep the process from its end.
        self._thread = threading.Thread(target=self._write_lines, name=thread_name, daemon=True)
        self._thread.start()

    def put(self, line: bytes) -> None:
        """Take a line, with its line break, or leave it out; never waits for the reader."""
        with self._changed:
            room = self._queue_bytes_max // (2 if self._unsaid else 1)
            if self._closed:
                return
            if self._lines and self._queue_bytes + len(line) > room:
                self._drop(1)
                return
            self._enter(line)

    def flush(self, stalled_s: float = STALLED_S) -> bool:
        """Wait until all is written; False when the reader stalls, or takes all too long."""
        until_s = time.monotonic() + FLUSH_S
        with self._changed:
            while self._lines:
                patience_s = min(stalled_s, max(0.0, until_s - time.monotonic()))
                if not self._changed.wait_for(self._advanced_from(self._taken), patience_s):
                    return False
            return True

    def close(self) -> bool:
        """Let the thread end, once it has written what waits, and wait for it a moment; nothing
        that is put from here on is written. False: it is stuck, and still uses the descriptor."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(STALLED_S)
        return not self._thread.is_alive()

    def _advanced_from(self, taken: int) -> Callable[[], bool]:
        return lambda: self._taken != taken

    def _enter(self, line: bytes) -> None:
        self._lines.append((self._unsaid, line))
        self._queue_bytes += len(line)
        self._unsaid = 0
        self._changed.notify_all()

    def _drop(self, lines: int) -> None:
        self.dropped_total += lines
        self._unsaid += lines

    def _write_lines(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._closed)
                if not self._lines:
                    return
                dropped, line = self._lines[0]
            try:
                if dropped:
                    self._write(self._said_dropped(dropped))
                self._write(line)
            except OSError:  # the reader has gone, or the disk behind is full
                self._end_of(line, lost=1 if line else 0, unsaid=dropped)
            else:
                self._end_of(line)

    def _end_of(self, line: bytes, *, lost: int = 0, unsaid: int = 0) -> None:
        with self._changed:
            self._lines.popleft()
            self._queue_bytes -= len(line)
            self._taken += 1
            self._drop(lost)
            self._unsaid += unsaid
            if self._unsaid and not self._lines and not lost and not unsaid:
                self._enter(b"")
            self._changed.notify_all()

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # whoever shares the pipe made it non-blocking
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()


class LineStream(io.TextIOBase):
    """What stands in for `sys.stderr`: what is printed goes the way of the log, line by line."""

    def __init__(self, writer: LineWriter, fd: int) -> None:
        self._writer = writer
        self._fd = fd
        self._lock = threading.RLock()
        self._rest = ""

    encoding = "utf-8"
    errors = "backslashreplace"

    def write(self, text: str, /) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in lines:
                self._put(line + "\n")
        return len(text)

    def flush(self) -> None:
        """Whole lines are on their way already; what is left of one follows."""
        with self._lock:
            rest, self._rest = self._rest, ""
            if rest:
                self._put(rest)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._fd)

    def fileno(self) -> int:
        return self._fd

    def _put(self, text: str) -> None:
        self._writer.put(text.encode(self.encoding, self.errors))
