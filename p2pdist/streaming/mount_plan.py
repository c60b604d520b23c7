"""What a worker of a mount has to know, as a file beside the indexes: so the next one knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import msgspec

from p2pdist.errors import ConfigError
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import image_name
from p2pdist.process.files import read_file, write_whole

FILE_NAME: Final = "plan.json"
LAYERS_DIRECTORY: Final = "layers"
"""Where the layers are mounted, below the directory of the plan."""
PLAN_BYTES_MAX: Final = 1 << 20

_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class PlannedLayer(msgspec.Struct, frozen=True):
    digest: _Text
    index: _Text
    """The name of a file beside the plan, as is `file`: all of the layer, where it lies here."""
    file: _Text = ""


class MountPlan(msgspec.Struct, frozen=True):
    image: _Text
    """For people."""
    upstream: _Text
    repository: _Text
    endpoint: _Text
    target: _Text
    """Where the image is mounted."""
    layers: list[PlannedLayer]
    """From the lowest up."""

    @property
    def name(self) -> ImageName:
        return image_name(self.upstream, self.repository)


def write_plan(directory: Path, plan: MountPlan) -> None:
    """Blocking. Raises OSError."""
    write_whole(directory / FILE_NAME, msgspec.json.encode(plan))


def read_plan(directory: Path) -> MountPlan:
    """Blocking. Raises ConfigError."""
    try:
        data = read_file(directory / FILE_NAME, PLAN_BYTES_MAX)
        return msgspec.json.decode(data or b"", type=MountPlan)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        raise ConfigError(f"{directory / FILE_NAME}: {error}") from None
