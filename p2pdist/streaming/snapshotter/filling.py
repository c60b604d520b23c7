"""Has the mirror bring the rest of what is shown, as `streaming/core/policy.py` says."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable
from typing import Protocol

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.streaming.core import policy
from p2pdist.streaming.core.policy import FillOrder, FillPolicy
from p2pdist.streaming.snapshotter.layer_files import LayerPlan
from p2pdist.streaming.snapshotter.mirror import MirrorFault

log = logging.getLogger(__name__)


class Fills(Protocol):
    """What it asks of a mirror."""

    async def fill(self, name: ImageName, layer: Digest) -> bool:
        """Order the whole of a layer; tell whether it is there already. Raises MirrorFault."""
        ...


class Filling:
    def __init__(
        self,
        mirror: Fills,
        lacking: Callable[[], list[LayerPlan]],
        held: Callable[[Digest], None],
        *,
        again_s: float = policy.FILL_AGAIN_S,
        again_max_s: float = policy.FILL_AGAIN_MAX_S,
    ) -> None:
        """`lacking`: the layers that are shown and whose bytes are elsewhere; it may block. `held`
        is told of each that is here as a whole."""
        self._mirror = mirror
        self._lacking = lacking
        self._tell_held = held
        self._policy = FillPolicy(again_s=again_s, again_max_s=again_max_s)
        self._names: dict[Digest, ImageName] = {}
        """By which the mirror is asked for what is lacking."""
        self._more = asyncio.Event()
        self._more.set()

    @property
    def held(self) -> set[Digest]:
        """The blobs that the mirror has as a whole."""
        return self._policy.held

    def more(self) -> None:
        """Something is shown that was not."""
        self._more.set()

    async def run(self) -> None:
        """For ever."""
        loop = asyncio.get_running_loop()
        while True:
            await self._wait(self._policy.next_deadline_s())
            if self._more.is_set():
                self._more.clear()
                orders = deque(self._policy.handle(policy.More(), loop.time()))
            else:
                orders = deque(self._policy.handle_deadline(loop.time()))
            while orders:
                orders.extend(await self._carried_out(orders.popleft()))

    async def _wait(self, until_s: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until_s):
                await self._more.wait()

    async def _carried_out(self, order: FillOrder) -> list[FillOrder]:
        """What is to be done because of that."""
        event: policy.Lacking | policy.Asked
        match order:
            case policy.Look():
                plans = await asyncio.to_thread(self._lacking)
                self._names = {plan.blob: plan.name for plan in plans}
                event = policy.Lacking([plan.blob for plan in plans])
            case policy.Fill(layer):
                event = policy.Asked(layer, await self._fill(layer))
            case policy.Held(layer):
                self._tell_held(layer)
                logs.event(log, logging.INFO, "layer.held", digest=layer)
                return []
        return self._policy.handle(event, asyncio.get_running_loop().time())

    async def _fill(self, layer: Digest) -> bool:
        try:
            return await self._mirror.fill(self._names[layer], layer)
        except MirrorFault as error:  # it may come back, or another layer be there
            logs.event(log, logging.INFO, "fill.not_asked", digest=layer, error=str(error))
            return False
