"""An image store on disk. It can be made anew from what is shown; it is read at any time."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from p2pdist.process.files import private_directory, read_file, write_whole
from p2pdist.streaming.core.tar_split import refusal
from p2pdist.streaming.snapshotter.core.image_store import (
    StoredLayer,
    layers_json,
    lower_of,
    short_name,
)

LOCK_BYTES: Final = 64
RECIPE_TAIL: Final = ".tar-split.gz"
NOT_HERE_NAME: Final = "not-here.tar-split.gz"
NOT_HERE: Final = "(this layer is not all here yet: images are saved and pushed when it is)"
"""An engine shows it as the path of a file that it cannot open. Without a recipe it would make an
archive with other bytes."""
LAYERS_JSON, IMAGES_JSON = "overlay-layers/layers.json", "overlay-images/images.json"


@dataclass(frozen=True, slots=True)
class LayerPlace:
    files: str
    recipe: str | None = None
    """How its archive is made of them again (`core.tar_split`); None: not known yet."""


class ImageStoreFiles:
    """Blocking; for one thread at a time. Raises OSError, and ConfigError where the place is not
    ours alone."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._overlay = root / "overlay"
        self._written: bytes | None = None

    def begin(self) -> None:
        """Make an empty store, or leave the one that is there."""
        private_directory(self.root)
        for name in ("overlay", "overlay/l", "overlay-layers", "overlay-images"):
            (self.root / name).mkdir(mode=0o700, exist_ok=True)
        for name in (LAYERS_JSON, IMAGES_JSON):
            if not (self.root / name).exists():
                write_whole(self.root / name, b"[]")
        write_whole(self.root / NOT_HERE_NAME, refusal(NOT_HERE))
        for name in ("overlay-layers/layers.lock", "overlay-images/images.lock"):
            if not (self.root / name).exists():
                write_whole(self.root / name, secrets.token_bytes(LOCK_BYTES))

    def put(self, layers: Mapping[str, StoredLayer], places: Mapping[str, LayerPlace]) -> None:
        """Make it a store of just these layers; `places`: where each of them is. A layer is
        there before it is told of, and goes after that: a reader sees no other state."""
        for layer in layers.values():
            self._put_layer(layer, lower_of(layer, layers), places[layer.id])
        body = layers_json(layers.values())
        if body != self._written:
            write_whole(self.root / LAYERS_JSON, body, durable=False)
            self._tell_readers()
            self._written = body
        self._remove_others(layers)

    def asked_for(self, layer: str) -> None:
        with suppress(FileNotFoundError):
            os.utime(self._asked(layer))

    def asked_since(self, layer: str, unix_s: float) -> bool:
        try:
            return self._asked(layer).stat().st_mtime >= unix_s
        except FileNotFoundError:
            return False

    def _asked(self, layer: str) -> Path:
        """The file whose time says when: nothing else changes it."""
        return self._overlay / layer / "link"

    def _put_layer(self, layer: StoredLayer, lower: str, place: LayerPlace) -> None:
        directory, short = self._overlay / layer.id, short_name(layer.number)
        if _text(directory / "link") != short:  # of an earlier state, or not there
            shutil.rmtree(directory, ignore_errors=True)
            made = self._overlay / f"{layer.id}.new"
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir(mode=0o700)
            (made / "diff").symlink_to(place.files)
            (made / "link").write_text(short)
            if lower:
                (made / "lower").write_text(lower)
            made.rename(directory)
        _link(self._overlay / "l" / short, f"../{layer.id}/diff")
        _link(directory / "diff", place.files)
        _link(self._recipe(layer.id), place.recipe or str(self.root / NOT_HERE_NAME))

    def _recipe(self, layer: str) -> Path:
        return self.root / "overlay-layers" / f"{layer}{RECIPE_TAIL}"

    def _tell_readers(self) -> None:
        """They look whether the lock is as they last saw it (`pkg/lockfile`), and read no more than
        this of it."""
        fd = os.open(self.root / "overlay-layers/layers.lock", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(fd, secrets.token_bytes(LOCK_BYTES), 0)
        finally:
            os.close(fd)

    def _remove_others(self, layers: Mapping[str, StoredLayer]) -> None:
        for name in os.listdir(self._overlay):
            if name != "l" and name not in layers:
                shutil.rmtree(self._overlay / name, ignore_errors=True)
        for path in (self.root / "overlay-layers").glob(f"*{RECIPE_TAIL}"):
            if path.name.removesuffix(RECIPE_TAIL) not in layers:
                path.unlink(missing_ok=True)
        shorts = {short_name(layer.number) for layer in layers.values()}
        for name in os.listdir(self._overlay / "l"):
            if name not in shorts:
                with suppress(OSError):
                    (self._overlay / "l" / name).unlink()


def _text(path: Path) -> str:
    return (read_file(path, 4096) or b"").decode("utf-8", "replace")


def _link(path: Path, target: str) -> None:
    with suppress(OSError):
        if os.readlink(path) == target:
            return
    made = path.with_name(f"{path.name}.new")
    made.unlink(missing_ok=True)
    made.symlink_to(target)
    made.rename(path)
