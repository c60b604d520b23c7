"""Makes plain files of layers that are whole by now: new containers read them from the disk, and no
process of ours is between."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pdist.model.ids import Digest
from p2pdist.process import logs
from p2pdist.process.processes import yield_to_others
from p2pdist.streaming.snapshotter.layer_files import FILES, LayerPlan
from p2pdist.streaming.snapshotter.unpack_worker import UNFIT

log = logging.getLogger(__name__)

WORKER: Final = "p2pdist.streaming.snapshotter.unpack_worker"
RETRY_S: Final = 600.0
LAYER_S_MAX: Final = 3600.0
REASON_BYTES_MAX: Final = 1000


class Unpacking:
    """One layer at a time, in the order in which they came."""

    def __init__(
        self,
        root: Path,
        plans: Callable[[], list[tuple[int, LayerPlan]]],
        unpacked: Callable[[], None] = lambda: None,
        *,
        with_recipes: bool = False,
    ) -> None:
        """`plans`: of all that is shown, by number; it may block. `unpacked` is told of each that
        is plain files."""
        self._more_words = ["recipe"] if with_recipes else []
        self._tell_unpacked = unpacked
        self._root = root
        self._plans = plans
        self._held: set[Digest] = set()
        self._failed_s: dict[int, float] = {}
        """When; it is tried again with the next layer that comes after RETRY_S."""
        self._more = asyncio.Event()
        self._more.set()

    def held(self, layer: Digest) -> None:
        """All of it lies at the mirror of this host."""
        self._held.add(layer)
        self._more.set()

    def more(self) -> None:
        """Something is shown that was not."""
        self._more.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._more.wait()
            self._more.clear()
            for number in await self._ready():
                await self._unpack(number)

    async def _ready(self) -> list[int]:
        """Those to be unpacked now."""
        before, now_s = set(self._held), asyncio.get_running_loop().time()
        plans = await asyncio.to_thread(self._plans)
        # What is held was shown before: one that is not among them is shown no more.
        self._held -= before - {plan.blob for _, plan in plans}
        shown = {number for number, _ in plans}
        self._failed_s = {
            number: at_s
            for number, at_s in self._failed_s.items()
            if number in shown and now_s < at_s + RETRY_S
        }
        return [
            number
            for number, plan in plans
            if (plan.whole or plan.blob in self._held)
            and number not in self._failed_s
            and not self._unpacked(number)
        ]

    def _unpacked(self, number: int) -> bool:
        return (self._root / "layers" / str(number) / FILES).is_dir()

    async def _unpack(self, number: int) -> None:
        words = [sys.executable, "-P", "-m", WORKER, str(self._root), str(number)]
        words += self._more_words
        pipe, nothing = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            *words, stdin=nothing, stdout=nothing, stderr=pipe, cwd="/"
        )
        yield_to_others(process.pid)
        try:
            async with asyncio.timeout(LAYER_S_MAX):
                _, said = await process.communicate()
        except TimeoutError:
            said = b"it takes too long"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode == 0:
            logs.event(log, logging.INFO, "layer.unpacked", number=number)
            self._tell_unpacked()
            return
        if not (self._root / "layers" / str(number)).is_dir():
            return  # removed meanwhile
        self._failed_s[number] = asyncio.get_running_loop().time()
        level = logging.ERROR if process.returncode == UNFIT else logging.WARNING
        reason = said.decode("utf-8", "replace").strip()[-REASON_BYTES_MAX:]
        logs.event(log, level, "layer.not_unpacked", number=number, error=reason)
