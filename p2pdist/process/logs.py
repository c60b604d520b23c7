"""Log lines as an event name and keys: JSON for machines, plain text on a terminal.

Logging never waits for whoever reads the lines (`log_writer`).
"""

from __future__ import annotations

import datetime
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from p2pdist.process.log_writer import LineStream, LineWriter
from p2pdist.process.terminal import printable, printable_lines

DROPPED: Final = "log.dropped"


def event(
    logger: logging.Logger,
    level: int,
    name: str,
    *,
    exc_info: BaseException | None = None,
    **fields: Any,
) -> None:
    """Log `name` (a dotted constant) with `fields`; units end their names (`_s`, `_bytes`)."""
    if logger.isEnabledFor(level):
        logger.log(level, name, extra={"fields": fields}, exc_info=exc_info)


class Sparing:
    """Logs an event that others can bring about at will: a few lines, then a count of the rest."""

    LINES: Final = 5
    PER_S: Final = 10.0

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._since_s = -self.PER_S
        self._count = 0

    def event(self, logger: logging.Logger, level: int, name: str, **fields: Any) -> None:
        """As the function; `unlogged` says how many were left out before this one."""
        now_s = self._monotonic()
        if now_s - self._since_s >= self.PER_S:
            unlogged = max(0, self._count - self.LINES)
            self._since_s, self._count = now_s, 0
            if unlogged:
                fields["unlogged"] = unlogged
        self._count += 1
        if self._count <= self.LINES:
            event(logger, level, name, **fields)


def set_up(level: str, style: str, *, role: str = "") -> None:
    """Log to stderr from `level` on; `style`: `json`, `text`, or `auto` (text on a terminal)."""
    plain = style == "text" or (style == "auto" and sys.stderr.isatty())
    formatter = TextLines() if plain else JsonLines(role)
    fd = sys.stderr.fileno()
    writer = LineWriter(fd, lambda lines: _dropped_line(formatter, lines))
    handler = QueuedLines(writer)
    handler.setFormatter(formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("asyncio", "aiohttp"):  # at debug they show cookies and callbacks' arguments
        logging.getLogger(library).setLevel(logging.WARNING)
    # Warnings, and what Python says about errors that nobody caught, are printed there.
    sys.stderr = LineStream(writer, fd)


def dropped_total() -> int:
    """Lines of this process that were left out, because nobody read those before."""
    return sum(handler.writer.dropped_total for handler in _queued())


def flush() -> None:
    """Wait for the lines so far to be written, as long as somebody reads them."""
    for handler in _queued():
        handler.flush()


def _queued() -> list[QueuedLines]:
    return [handler for handler in logging.getLogger().handlers if isinstance(handler, QueuedLines)]


def _dropped_line(formatter: logging.Formatter, lines: int) -> bytes:
    record = logging.makeLogRecord(
        {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
        | {"msg": DROPPED, "fields": {"lines": lines}}
    )
    return (formatter.format(record) + "\n").encode("utf-8", "backslashreplace")


class QueuedLines(logging.Handler):
    """Formats a line where it is logged and leaves the writing to the thread of `writer`."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self.writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record) + "\n"
        except Exception:  # noqa: BLE001  # a line that cannot be made ends nobody who logs it
            self.handleError(record)
        else:
            self.writer.put(line.encode("utf-8", "backslashreplace"))

    def flush(self) -> None:
        """Also at the end of the process, by `logging.shutdown`."""
        self.writer.flush()


class JsonLines(logging.Formatter):
    """One JSON object a line: `ts` (RFC 3339, UTC, ms), `level`, `event`, then the fields."""

    def __init__(self, role: str = "") -> None:
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "ts": _timestamp(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        if self._role:
            line["role"] = self._role
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["traceback"] = "".join(traceback.format_exception(*record.exc_info))
        return json.dumps(line, default=str)


class TextLines(logging.Formatter):
    """`time LEVEL event key=value …`, for people."""

    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={value}" for key, value in fields.items())
        text = f"{_timestamp(record.created)} {record.levelname:7} {record.getMessage()}{pairs}"
        text = printable(text)
        if record.exc_info:
            text += "\n" + printable_lines("".join(traceback.format_exception(*record.exc_info)))
        return text


def _timestamp(unix_s: float) -> str:
    moment = datetime.datetime.fromtimestamp(unix_s, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
