"""The image that the fault rows pull: layers of one size, so that runs can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.e2e.faults.scene import Scene
from tests.e2e.harness.image import REFERENCE, Image, build_image
from tests.e2e.harness.lab import Lab, open_lab

LAYERS: Final = 3
LAYER_BYTES: Final = 40_000_000
# The last one, for what needs no time in the middle.
SHORT_LAYER_BYTES: Final = 10_000_000
# Upstream is the bottleneck, so that a proxy is in the middle of its fetch: 40 MB in 6.4 s.
SLOW_MBIT_PER_S: Final = 50


@pytest.fixture(scope="session")
def layered(image_dir: Path) -> Image:
    sizes = [LAYER_BYTES] * LAYERS + [SHORT_LAYER_BYTES]
    return build_image(image_dir / "layered", layer_bytes=sizes)


@pytest.fixture(scope="session")
def layered_storage(image_dir: Path, layered: Image) -> Path:
    """The storage of a registry that holds the image as REFERENCE."""
    path = image_dir / "layered-storage"
    with open_lab() as lab:
        lab.registry(lab.host("registry"), path).push(layered, REFERENCE)
    return path


@pytest.fixture
def scene(lab: Lab, layered: Image, layered_storage: Path) -> Scene:
    """Registry, tracker and proxy are running; no peer yet."""
    return Scene(lab, layered, layered_storage)


@pytest.fixture
def slow_upstream(lab: Lab, layered: Image, layered_storage: Path) -> Scene:
    """The same, behind a slow registry."""
    return Scene(lab, layered, layered_storage, registry_mbit_per_s=SLOW_MBIT_PER_S)
