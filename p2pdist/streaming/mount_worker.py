"""`python -m p2pdist.streaming.mount_worker DIRECTORY`: answers the mount that is planned there.

Started, and started again, by `streaming.fuse.holder`; so it imports little.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from pathlib import Path
from typing import Final

from p2pdist.model.ids import parse_digest
from p2pdist.model.layer_index import INDEX_BYTES_MAX
from p2pdist.process import logs
from p2pdist.streaming.core.image_tree import inherit
from p2pdist.streaming.core.index import decode_index
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.file_ranges import FileRanges
from p2pdist.streaming.fuse.session import SessionOptions
from p2pdist.streaming.fuse.worker import serve
from p2pdist.streaming.layers_tree import LayersTree, ListedLayers
from p2pdist.streaming.mirror_ranges import MirrorRanges
from p2pdist.streaming.mount_plan import MountPlan, PlannedLayer, read_plan
from p2pdist.streaming.read_counts import ReadCounts, counts_in
from p2pdist.streaming.span_reads import LayerSpans, Ranges, SpanStore

AGE_S: Final = 1.0


def planned_layers(directory: Path, counts: ReadCounts) -> ListedLayers:
    """Raises ConfigError, UnfitLayer, OSError."""
    plan, store = read_plan(directory), SpanStore(counts=counts)
    layers = [_layer(directory, plan, layer, n, store) for n, layer in enumerate(plan.layers)]
    inherit([tree for tree, _ in layers])
    return ListedLayers(layers)


def _layer(
    directory: Path, plan: MountPlan, layer: PlannedLayer, number: int, store: SpanStore
) -> tuple[LayerTree, LayerSpans]:
    with (directory / layer.index).open("rb") as file:
        index = decode_index(file.read(INDEX_BYTES_MAX + 1))
    ranges: Ranges
    if layer.file:
        ranges = FileRanges(directory / layer.file)
    else:
        ranges = MirrorRanges(plan.endpoint, plan.name, parse_digest(layer.digest))
    return LayerTree(index.entries), LayerSpans(number, index, ranges, store)


def _age(counts: ReadCounts) -> None:
    while True:
        time.sleep(AGE_S)
        counts.age()


def main() -> None:
    logs.set_up("info", "text")
    gc.disable()  # while a million nodes are made that all stay
    place = Path(sys.argv[1])
    counts = counts_in(place)
    layers = planned_layers(place, counts)
    gc.freeze()
    gc.enable()
    threading.Thread(target=_age, args=(counts,), name="age", daemon=True).start()
    serve(LayersTree(layers), SessionOptions(no_xattrs=not layers.has_xattrs))


if __name__ == "__main__":
    main()
