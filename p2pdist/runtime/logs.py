"""Log lines as an event name and keys."""

from __future__ import annotations

import logging
from typing import Any


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
