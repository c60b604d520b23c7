"""What is shown of images, and how much of it is here: looked at every few seconds, so that who
asks is answered at once."""

from __future__ import annotations

import asyncio
import enum
import logging
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pdist.model.ids import Digest
from p2pdist.process import logs
from p2pdist.streaming.snapshotter.layer_files import LayerPlan

log = logging.getLogger(__name__)

LOOK_S: Final = 5.0


class Where(enum.StrEnum):
    """Where what is read of a layer comes from. Values are label values."""

    ELSEWHERE = "elsewhere"
    """Not all of it is known to be on this host."""
    HERE = "here"
    """All of it is at the mirror of this host, or lies beside its index."""
    FILES = "files"
    """New containers read plain files."""


@dataclass(frozen=True, slots=True)
class ShownLayer:
    image: str
    """By its first pull: registry and repository."""
    size_bytes: int
    """Of the blob; 0 for one that was shown by a version that did not write it down."""
    where: Where


@dataclass(slots=True)
class ShownImage:
    layers: int = 0
    size_bytes: int = 0
    here_bytes: int = 0
    """Of blobs that are on this host as a whole, or became files."""


@dataclass(frozen=True, slots=True)
class Tally:
    layers: Counter[Where] = field(default_factory=Counter)
    nbytes: Counter[Where] = field(default_factory=Counter)
    images: dict[str, ShownImage] = field(default_factory=dict)


def tally(shown: Sequence[ShownLayer]) -> Tally:
    found = Tally()
    for layer in shown:
        found.layers[layer.where] += 1
        found.nbytes[layer.where] += layer.size_bytes
        image = found.images.setdefault(layer.image, ShownImage())
        image.layers += 1
        image.size_bytes += layer.size_bytes
        image.here_bytes += 0 if layer.where is Where.ELSEWHERE else layer.size_bytes
    return found


class Inventory:
    def __init__(
        self,
        plans: Callable[[], list[tuple[int, LayerPlan]]],
        is_plain: Callable[[int], bool],
        held: Callable[[], Collection[Digest]],
        *,
        look_s: float = LOOK_S,
    ) -> None:
        """`plans`: of all that is shown, by number, and `is_plain`: whether one of them became
        files; both may block. `held`: what the mirror of this host has as a whole."""
        self._plans = plans
        self._is_plain = is_plain
        self._held = held
        self._look_s = look_s
        self.tally = Tally()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                self.tally = await asyncio.to_thread(self._looked, frozenset(self._held()))
            except OSError as error:  # the next look may go well
                logs.event(log, logging.WARNING, "inventory.unreadable", error=str(error))
            await asyncio.sleep(self._look_s)

    def _looked(self, held: Collection[Digest]) -> Tally:
        return tally(
            [
                ShownLayer(str(plan.name), plan.size_bytes, self._where(number, plan, held))
                for number, plan in self._plans()
            ]
        )

    def _where(self, number: int, plan: LayerPlan, held: Collection[Digest]) -> Where:
        if self._is_plain(number):
            return Where.FILES
        return Where.HERE if plan.whole or plan.blob in held else Where.ELSEWHERE
