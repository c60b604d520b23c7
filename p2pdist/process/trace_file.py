"""The file that a daemon writes its trace to: whoever traces never waits for the disk."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Final

import msgspec

from p2pdist.errors import ConfigError
from p2pdist.process import logs
from p2pdist.process.log_writer import LineWriter

log = logging.getLogger(__name__)

FILE_BYTES_MAX: Final = 4 << 30
"""About a TB of payload; a trace is for hours, not for years."""
QUEUE_BYTES_MAX: Final = 8 << 20


class TraceFile:
    """Lines are added behind those of earlier runs. When the disk is too slow some are left out,
    and a line says how many; when the file is full it takes no more, and the log says so."""

    def __init__(
        self, path: Path, host: str, *, file_bytes_max: int = FILE_BYTES_MAX, setting: str = ""
    ) -> None:
        """Open or make it, for its owner only. Raises ConfigError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            named = f"{setting}: " if setting else ""
            hint = "name a file in a directory that is there and that this user may write to"
            raise ConfigError(f"{named}{path}: {error.strerror}", hint=hint) from None
        self._path = path
        self._host = host
        self._left_bytes = file_bytes_max - os.fstat(self._fd).st_size
        self._writer = LineWriter(
            self._fd, self._said_dropped, queue_bytes_max=QUEUE_BYTES_MAX, thread_name="trace"
        )

    def write(self, line: bytes) -> None:
        """Take a line, with its line break, or leave it out."""
        if self._left_bytes < 0:
            return
        self._left_bytes -= len(line)
        if self._left_bytes < 0:
            text = "no more is written to it; move it away and restart the daemon"
            logs.event(log, logging.WARNING, "trace.full", file=str(self._path), error=text)
            return
        self._writer.put(line)

    def close(self) -> None:
        """Write what waits, as far as the disk takes it, and take nothing more. Waits for the
        disk: not to be called on the event loop."""
        self._left_bytes = -1
        self._writer.flush()
        if self._writer.close():  # else the next file with its number would get the rest
            os.close(self._fd)

    def _said_dropped(self, lines: int) -> bytes:
        said = {"t": 0.0, "host": self._host, "what": "left_out", "left_out": lines}
        return msgspec.json.encode(said) + b"\n"
