"""A layer that can be shown: its index is here, and it is the one that the image names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from p2pdist.oci.layered_image import ImageLayer
from p2pdist.oci.names import ImageName
from p2pdist.streaming.core.index import decode_index
from p2pdist.streaming.core.tree import LayerTree


@dataclass(frozen=True, slots=True)
class OpenedLayer:
    name: ImageName
    layer: ImageLayer
    index: Path
    blob: Path | None
    """All of the layer, where it lies here: its blob, or the archive that was in it."""
    diff_bytes: int
    """Of the archive."""
    expected: list[int] = field(default_factory=list)
    """What starts read of it elsewhere: MiB of its archive, in that order."""
    inflated: bool = False
    """It was zstd, and lies here as the archive that was in it."""

    def needs_those_below(self) -> bool:
        """Whether it has directories that only the layers below it describe. Blocking. Raises
        OSError, UnfitLayer."""
        return LayerTree(decode_index(self.index.read_bytes()).entries).has_unnamed
