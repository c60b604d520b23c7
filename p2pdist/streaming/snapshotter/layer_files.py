"""What a layer is shown by: a directory with its index, and whose blob it is.

    LAYERS/<number>/layer.json
    LAYERS/<number>/index
    LAYERS/<number>/blob           all of it, where it is small
    LAYERS/<number>/trace          what was read of it first, until that is passed on (`traces`)
    LAYERS/<number>/tar-split.gz   how its archive is made of these again, if that is wanted
    LAYERS/<number>/fs             its files, once all of it was here (`unpack_worker`)

The first three are written before anybody is told of the number; all is taken away as a whole.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from p2pdist.errors import ConfigError
from p2pdist.model.control import TRACE_UNITS_MAX
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import image_name
from p2pdist.process.files import read_bounded_file, sync_directory, write_whole
from p2pdist.streaming.snapshotter.opened import OpenedLayer

PLAN, INDEX, BLOB, FILES, TRACE = "layer.json", "index", "blob", "fs", "trace"
RECIPE: Final = "tar-split.gz"
_PLAN_BYTES_MAX: Final = 1 << 16
_UNFINISHED: Final = ".new"

_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class LayerPlan(msgspec.Struct, frozen=True):
    upstream: _Text
    repository: _Text
    digest: _Text
    below: Annotated[list[int], msgspec.Meta(max_length=1024)]
    """The layers below it that are shown, too, from the lowest up."""
    whole: bool
    """All of it lies here."""
    expected: Annotated[list[int], msgspec.Meta(max_length=TRACE_UNITS_MAX)] = []
    """What starts read of it elsewhere (`traces`)."""
    size_bytes: int = 0
    """Of the blob; 0: written by a version that did not say."""

    @property
    def name(self) -> ImageName:
        return image_name(self.upstream, self.repository)

    @property
    def blob(self) -> Digest:
        return parse_digest(self.digest)


def write_layer(layers: Path, number: int, opened: OpenedLayer, below: Sequence[int]) -> None:
    """Blocking; it is on the disk then, all of it or nothing. Raises OSError."""
    place, made = layers / str(number), layers / f"{number}{_UNFINISHED}"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir(mode=0o700)
    name = opened.name
    plan = LayerPlan(
        name.upstream,
        name.repository,
        opened.layer.digest,
        list(below),
        opened.blob is not None,
        opened.expected,
        opened.layer.size_bytes,
    )
    os.link(opened.index, made / INDEX)
    if opened.blob is not None:
        os.link(opened.blob, made / BLOB)
    write_whole(made / PLAN, msgspec.json.encode(plan))
    made.rename(place)
    sync_directory(layers)


def read_plan(directory: Path) -> LayerPlan:
    """Blocking. Raises ConfigError, OSError."""
    data = read_bounded_file(directory / PLAN, _PLAN_BYTES_MAX)
    try:
        return msgspec.json.decode(data or b"", type=LayerPlan)
    except msgspec.DecodeError as error:
        raise ConfigError(f"{directory / PLAN}: {error}") from None
