"""`python -m p2pdist.streaming.snapshotter.unpack_worker ROOT NUMBER [recipe]`: a layer as plain
files; with a recipe to make its archive of them again.

In a process by itself, which gives way to all others: an archive of strangers is written by it, and
it takes seconds of a core. Exit codes: 0; 65, not of this layer, the reason on stderr; 75, not now.
"""

from __future__ import annotations

import gzip
import os
import resource
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from p2pdist.errors import ConfigError
from p2pdist.process import logs
from p2pdist.process.files import sync_directory
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.snapshotter.layer_files import FILES, RECIPE
from p2pdist.streaming.snapshotter.worker import GrowingLayers, endpoint_of
from p2pdist.streaming.unpacking import checked, unpack

UNFIT: Final = 65
NOT_NOW: Final = 75
MEMORY_BYTES_MAX: Final = 2 << 30
FREE_RATIO_MIN: Final = 0.1
"""Of the file system, after all is written: the containers of a host write there, too."""


def unpack_layer(root: Path, number: int, *, with_recipe: bool = False) -> None:
    """Raises UnfitLayer, ConfigError, OSError; nothing is left of it then."""
    directory = root / "layers" / str(number)
    found = GrowingLayers(root / "layers", endpoint_of(root), starts=False).find(number)
    if found is None:
        raise FileNotFoundError(directory)
    tree, spans = found
    _check_room(directory, spans.index.diff_bytes)
    target = directory / f"{FILES}.new"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o700)
    try:
        archive = checked(spans.all(), spans.index.diff_id)
        if with_recipe:
            _unpack_with_recipe(tree, archive, target)
        else:
            unpack(tree, archive, os.fsencode(target))
        target.rename(directory / FILES)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    sync_directory(directory)


def _unpack_with_recipe(tree: LayerTree, archive: Iterable[bytes], target: Path) -> None:
    made = target.with_name(f"{RECIPE}.new")
    try:
        with gzip.open(made, "wb", compresslevel=1) as file:
            unpack(tree, archive, os.fsencode(target), file.write)
        made.rename(target.with_name(RECIPE))
    except BaseException:
        made.unlink(missing_ok=True)
        raise


def _check_room(directory: Path, needed_bytes: int) -> None:
    place = os.statvfs(directory)
    kept = round(FREE_RATIO_MIN * place.f_blocks)
    spare_bytes = max(0, place.f_bavail - kept) * place.f_frsize
    if needed_bytes > spare_bytes:
        needed, spare = needed_bytes >> 20, spare_bytes >> 20
        raise ConfigError(f"it takes {needed} MiB, and {spare} are there beside what is kept free")


def outcome(root: Path, number: int, *, with_recipe: bool = False) -> int:
    """Unpack a layer, say why not, and return an exit code."""
    try:
        unpack_layer(root, number, with_recipe=with_recipe)
    except UnfitLayer as error:
        _say(error)
        return UNFIT
    except (ConfigError, OSError, MemoryError) as error:
        _say(error)
        return NOT_NOW
    return 0


def _say(error: Exception) -> None:
    """As a whole line: half of one is not written any more when the process ends."""
    sys.stderr.write((str(error) or "it takes too much memory") + "\n")


def main() -> int:
    logs.set_up("info", "text")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES_MAX, MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return outcome(Path(sys.argv[1]), int(sys.argv[2]), with_recipe="recipe" in sys.argv[3:])


if __name__ == "__main__":
    sys.exit(main())
