"""Passes on what containers of this host read when they started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.oci.traces import BODY_BYTES_MAX, decode_trace
from p2pdist.process import logs
from p2pdist.process.files import read_bounded_file
from p2pdist.streaming.snapshotter.layer_files import TRACE, LayerPlan, read_plan
from p2pdist.streaming.snapshotter.mirror import Mirror, MirrorFault

log = logging.getLogger(__name__)

LOOK_S: Final = 10.0
NEW_SHARE_MIN: Final = 0.1
"""Of a trace that has to be new: what all hosts know already nobody tells again."""


class Tracing:
    def __init__(
        self, mirror: Mirror, layers: Callable[[], list[Path]], *, look_s: float = LOOK_S
    ) -> None:
        """`layers`: the directories of all that is shown; it may block."""
        self._mirror = mirror
        self._layers = layers
        self._look_s = look_s

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self._look_s)
            for directory in await asyncio.to_thread(self._traced):
                await self._tell(directory)

    def _traced(self) -> list[Path]:
        return [directory for directory in self._layers() if (directory / TRACE).exists()]

    async def _tell(self, directory: Path) -> None:
        try:
            plan, units = await asyncio.to_thread(_recorded, directory)
            if is_news(units, plan.expected):
                await self._mirror.tell_trace(plan.blob, units)
        except MirrorFault as error:  # it is told when the mirror is back
            logs.event(log, logging.INFO, "trace.not_told", error=str(error))
            return
        except (ConfigError, OSError, ValueError) as error:
            logs.event(log, logging.WARNING, "trace.unreadable", error=str(error))
        with contextlib.suppress(OSError):
            await asyncio.to_thread((directory / TRACE).unlink)


def is_news(units: list[int], expected: list[int]) -> bool:
    new = set(units) - set(expected)
    return bool(units) and len(new) >= NEW_SHARE_MIN * len(units)


def _recorded(directory: Path) -> tuple[LayerPlan, list[int]]:
    """Blocking. Raises ConfigError, OSError, ValueError."""
    body = read_bounded_file(directory / TRACE, BODY_BYTES_MAX)
    return read_plan(directory), decode_trace(body or b"")
