"""The layers of a host, as they come, are read, and go."""

from __future__ import annotations

import errno
import shutil
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.layers_tree import LayersTree
from p2pdist.streaming.ports import ROOT_NODE
from p2pdist.streaming.snapshotter import worker
from p2pdist.streaming.snapshotter.layer_files import INDEX, write_layer
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.worker import GrowingLayers
from tests.e2e.harness.processes import wait_until
from tests.streaming.archives import archive, directory, file, gzipped, index_of, text

ARCHIVES = [
    archive(directory("d", 0o700), file("d/low", b"low")),
    archive(file("d/high", b"high")),
]
"""The upper one does not say what `d` is."""
LAYERS = [gzipped(plain) for plain in ARCHIVES]
IMAGE = layered_image(
    ImageName("docker.io", "library/app"),
    [(digest_of(layer), len(layer)) for layer in LAYERS],
    [digest_of(plain) for plain in ARCHIVES],
)


class Place:
    def __init__(self, directory: Path) -> None:
        self.directory = directory / "layers"
        self.directory.mkdir()
        self._opening = directory
        self.layers = GrowingLayers(self.directory, "http://127.0.0.1:1")
        self.tree = LayersTree(self.layers)

    def write(self, number: int, layer: int, below: list[int]) -> None:
        index, blob = self._opening / f"{number}.index", self._opening / f"{number}.blob"
        index.write_bytes(encode_index(index_of(LAYERS[layer])))
        blob.write_bytes(LAYERS[layer])
        opened = OpenedLayer(IMAGE.name, IMAGE.layers[layer], index, blob, len(ARCHIVES[layer]))
        write_layer(self.directory, number, opened, below)

    def node(self, path: str) -> int | None:
        node: int | None = ROOT_NODE
        for name in path.encode().split(b"/"):
            if node is not None:
                node = self.tree.child(node, name)
        return node

    def content(self, path: str) -> bytes:
        node = self.node(path)
        assert node is not None
        return self.tree.read(node, 0, 1 << 20)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_layer_is_there_as_soon_as_it_is_written(place: Place) -> None:
    assert place.tree.children(ROOT_NODE) == []
    assert place.node("7") is None

    place.write(7, 0, [])

    assert place.content("7/d/low") == b"low"
    assert [name for name, _ in place.tree.children(ROOT_NODE)] == [b"7"]
    assert place.tree.attributes(ROOT_NODE).links == 3


def test_directories_that_a_layer_does_not_describe_are_as_those_below_say(place: Place) -> None:
    place.write(1, 0, [])
    place.write(2, 1, [1])
    place.write(3, 1, [])

    def mode(path: str) -> int:
        node = place.node(path)
        assert node is not None
        return stat.S_IMODE(place.tree.attributes(node).mode)

    assert mode("2/d") == 0o700
    assert mode("3/d") == 0o755
    assert place.content("2/d/high") == b"high"


def test_a_layer_that_is_removed_goes_with_all_that_was_read_of_it(place: Place) -> None:
    place.write(1, 0, [])
    node = place.node("1/d/low")
    assert node is not None
    shutil.rmtree(place.directory / "1")

    place.layers.forget_removed()

    assert place.node("1") is None
    with pytest.raises(OSError, match="Stale") as told:
        place.tree.read(node, 0, 10)
    assert told.value.errno == errno.ESTALE


class Ranges:
    """In place of those of a mirror: hands nothing out before it is let go."""

    elsewhere = True
    blob = gzipped(archive(file("f", text(900_000))))
    index = index_of(blob, span_bytes=64 << 10)
    go = threading.Event()

    def __init__(self, endpoint: str, name: ImageName, digest: Digest) -> None:
        self.asked = 0

    def read_range(self, start: int, stop: int, *, again: bool = False) -> bytes:
        self.asked += 1
        assert self.go.wait(20)
        return self.blob[start:stop]


def test_of_a_layer_that_is_removed_nothing_more_is_brought(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Ranges] = []

    def ranges(*words: Any) -> Ranges:
        made.append(Ranges(*words))
        return made[-1]

    monkeypatch.setattr(worker, "MirrorRanges", ranges)
    Ranges.go.clear()
    place = Place(tmp_path)
    index = tmp_path / "index"
    index.write_bytes(encode_index(Ranges.index))
    traced = OpenedLayer(
        IMAGE.name, IMAGE.layers[0], index, None, Ranges.index.diff_bytes, expected=[0]
    )
    for number in (7, 8):
        write_layer(place.directory, number, traced, [])
        assert place.layers.find(number) is not None
    wait_until(lambda: made[0].asked == 1, "the first order")

    shutil.rmtree(place.directory / "7")
    place.layers.forget_removed()
    Ranges.go.set()

    wait_until(lambda: made[1].asked == len(Ranges.index.spans), "what is expected of the other")
    assert made[0].asked == 1
    assert len(Ranges.index.spans) > 3


def test_a_layer_is_read_from_its_files_by_whoever_comes_next(place: Place, tmp_path: Path) -> None:
    """Nodes are what the kernel knows of a file: another worker answers for them."""
    place.write(1, 0, [])
    node = place.node("1/d/low")
    assert node is not None

    other = LayersTree(GrowingLayers(place.directory, "http://127.0.0.1:1"))

    assert other.read(node, 0, 10) == b"low"


def test_a_damaged_layer_is_an_error_and_hurts_no_other(place: Place) -> None:
    place.write(1, 0, [])
    place.write(2, 0, [])
    (place.directory / "1" / INDEX).write_bytes(b"no index")
    (place.directory / "3").mkdir()

    for name in ("1", "3"):
        with pytest.raises(OSError, match=r".") as told:
            place.node(f"{name}/d")
        assert told.value.errno == errno.EIO
    assert place.content("2/d/low") == b"low"


@pytest.mark.parametrize("name", ["01", "-1", "+1", "1_0", "99999999", "x", ".."])
def test_a_layer_has_one_name(place: Place, name: str) -> None:
    place.write(1, 0, [])
    place.write(10, 0, [])

    assert place.node(name) is None
