"""Has the mirror bring the rest of what is shown, when nobody waits for anything else."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final, Protocol

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.streaming.snapshotter.layer_files import LayerPlan
from p2pdist.streaming.snapshotter.mirror import MirrorFault

log = logging.getLogger(__name__)

AGAIN_S: Final = 1.0
AGAIN_MAX_S: Final = 30.0
"""When the mirror is asked again, twice as long each time: it says when all is there, and may have
been restarted."""


class Fills(Protocol):
    """What it asks of a mirror."""

    async def fill(self, name: ImageName, layer: Digest) -> bool:
        """Order the whole of a layer; tell whether it is there already. Raises MirrorFault."""
        ...


class Filling:
    """The mirror is asked for all of it at once, and decides what comes first."""

    def __init__(
        self,
        mirror: Fills,
        lacking: Callable[[], list[LayerPlan]],
        held: Callable[[Digest], None],
        *,
        again_s: float = AGAIN_S,
        again_max_s: float = AGAIN_MAX_S,
    ) -> None:
        """`lacking`: the layers that are shown and whose bytes are elsewhere; it may block. `held`
        is told of each that is here as a whole."""
        self._mirror = mirror
        self._lacking = lacking
        self._tell_held = held
        self._again_s = again_s
        self._again_max_s = again_max_s
        self.held: set[Digest] = set()
        """The blobs that the mirror has as a whole."""
        self._more = asyncio.Event()
        self._more.set()

    def more(self) -> None:
        """Something is shown that was not."""
        self._more.set()

    async def run(self) -> None:
        """Ask for ever."""
        while True:
            await self._more.wait()
            self._more.clear()
            pause_s = self._again_s
            while not (await self._ask_for_all() or self._more.is_set()):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._more.wait()
                pause_s = min(2 * pause_s, self._again_max_s)

    async def _ask_for_all(self) -> bool:
        """Whether all of it is here."""
        shown = {plan.blob: plan.name for plan in await asyncio.to_thread(self._lacking)}
        self.held &= shown.keys()
        for layer in [layer for layer in shown if layer not in self.held]:
            try:
                if await self._mirror.fill(shown[layer], layer):
                    self.held.add(layer)
                    self._tell_held(layer)
                    logs.event(log, logging.INFO, "layer.held", digest=layer)
            except MirrorFault as error:  # it may come back, or another layer be there
                logs.event(log, logging.INFO, "fill.not_asked", digest=layer, error=str(error))
        return len(self.held) == len(shown)
