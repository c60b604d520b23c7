"""`python -m p2pdist.streaming.snapshotter.worker ROOT`: answers the mount of a host's layers.

Started, and started again, by `streaming.fuse.holder`; so it imports little, and reads a layer's
index when somebody first asks for it.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.model.layer_index import INDEX_BYTES_MAX
from p2pdist.process import logs
from p2pdist.streaming.core.image_tree import inherit_from
from p2pdist.streaming.core.index import decode_index
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.file_ranges import FileRanges
from p2pdist.streaming.fuse.session import SessionOptions
from p2pdist.streaming.fuse.worker import serve
from p2pdist.streaming.layers_tree import Layer, LayersTree
from p2pdist.streaming.mirror_ranges import MirrorRanges
from p2pdist.streaming.read_counts import ReadCounts, counts_in
from p2pdist.streaming.snapshotter.layer_files import BLOB, INDEX, TRACE, read_plan
from p2pdist.streaming.snapshotter.traces import Recorder
from p2pdist.streaming.span_reads import LayerSpans, SpanStore

log = logging.getLogger(__name__)

MIRROR_NAME: Final = "mirror"
"""Below ROOT: the mirror's base URL."""
SWEEP_S: Final = 1.0


class GrowingLayers:
    """Implements `Layers`: those of a directory, each read when it is first asked for."""

    def __init__(
        self,
        layers: Path,
        endpoint: str,
        *,
        starts: bool = True,
        counts: ReadCounts | None = None,
    ) -> None:
        """`starts`: containers start from it, and what they read is recorded and brought ahead."""
        self._layers = layers
        self._endpoint = endpoint
        self._store = SpanStore(counts=counts)
        self._starts = starts
        self._read: dict[int, Layer] = {}
        self._recorders: dict[int, Recorder] = {}
        self._reading = threading.Lock()

    def numbers(self) -> Sequence[int]:
        return sorted(int(name) for name in os.listdir(self._layers) if name.isdigit())

    def find(self, number: int) -> Layer | None:
        found = self._read.get(number)
        if found is not None:
            return found
        with self._reading:
            return self._found(number)

    def forget_removed(self) -> None:
        """Nobody asks for what is gone; its index would stay."""
        for number in list(self._read):
            if not (self._layers / str(number)).is_dir():
                del self._read[number]
                self._recorders.pop(number, None)
                self._store.ahead.gone(number)

    def end_traces(self) -> None:
        """Write those whose time is over."""
        for recorder in list(self._recorders.values()):
            recorder.end()

    def forget_unread(self) -> None:
        """What was opened for starts that did not come."""
        self._store.ahead.look_at_the_clock()

    def _found(self, number: int) -> Layer | None:
        if (found := self._read.get(number)) is not None:
            return found
        directory = self._layers / str(number)
        if not directory.is_dir():
            return None
        try:
            layer = self._opened(directory, number)
        except (ConfigError, UnfitLayer, OSError) as error:
            logs.event(
                log, logging.ERROR, "layer.unreadable", layer=str(directory), error=str(error)
            )
            raise OSError(errno.EIO, str(error)) from None
        self._read[number] = layer
        return layer

    def _opened(self, directory: Path, number: int) -> Layer:
        plan = read_plan(directory)
        gc.disable()  # while many nodes are made that all stay
        try:
            with (directory / INDEX).open("rb") as file:
                index = decode_index(file.read(INDEX_BYTES_MAX + 1))
            tree = LayerTree(index.entries)
        finally:
            gc.freeze()
            gc.enable()
        if tree.has_unnamed:
            below = [self._found(lower) for lower in plan.below]
            inherit_from([layer[0] for layer in below if layer is not None], tree)
        if plan.whole:
            return tree, LayerSpans(number, index, FileRanges(directory / BLOB), self._store)
        ranges = MirrorRanges(self._endpoint, plan.name, plan.blob)
        if not self._starts:
            return tree, LayerSpans(number, index, ranges, self._store)
        recorder = self._recorders[number] = Recorder(directory / TRACE, time.monotonic)
        watch, expected = recorder.read, plan.expected
        return tree, LayerSpans(number, index, ranges, self._store, watch=watch, expected=expected)


def endpoint_of(root: Path) -> str:
    return (root / MIRROR_NAME).read_text().strip()


def _sweep(layers: GrowingLayers, counts: ReadCounts) -> None:
    while True:
        time.sleep(SWEEP_S)
        counts.age()
        with contextlib.suppress(OSError):
            layers.forget_removed()
        layers.end_traces()
        layers.forget_unread()


def main() -> None:
    logs.set_up("info", "text")
    root = Path(sys.argv[1])
    counts = counts_in(root)
    layers = GrowingLayers(root / "layers", endpoint_of(root), counts=counts)
    threading.Thread(target=_sweep, args=(layers, counts), name="sweep", daemon=True).start()
    serve(LayersTree(layers), SessionOptions(root_changes=True))


if __name__ == "__main__":
    main()
