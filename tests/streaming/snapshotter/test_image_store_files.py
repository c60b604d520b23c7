"""An image store on disk, at each step that a reader may see."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest

from p2pdist.streaming.snapshotter.core.image_store import StoredLayer
from p2pdist.streaming.snapshotter.image_store_files import (
    LAYERS_JSON,
    NOT_HERE_NAME,
    ImageStoreFiles,
    LayerPlace,
)
from p2pdist.streaming.snapshotter.image_store_use import NotKnown, mounted_from, named_in
from tests.streaming.snapshotter.core.test_image_store import by_id, stored

BOTH = by_id(stored("a"), stored("b", "a", 2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "images"


@pytest.fixture
def files(root: Path) -> ImageStoreFiles:
    made = ImageStoreFiles(root)
    made.begin()
    return made


def places(layers: dict[str, StoredLayer], where: str = "/mnt") -> dict[str, LayerPlace]:
    return {name: LayerPlace(f"{where}/{layer.number}") for name, layer in layers.items()}


def lock_of(root: Path) -> bytes:
    return (root / "overlay-layers" / "layers.lock").read_bytes()


def test_a_store_is_there_before_it_has_anything(root: Path, files: ImageStoreFiles) -> None:
    for kind in ("layers", "images"):
        assert json.loads((root / f"overlay-{kind}" / f"{kind}.json").read_bytes()) == []
        assert len((root / f"overlay-{kind}" / f"{kind}.lock").read_bytes()) == 64


def test_readers_find_layers_and_hear_of_changes(root: Path, files: ImageStoreFiles) -> None:
    before = lock_of(root)
    files.put(BOTH, places(BOTH))

    overlay = root / "overlay"
    assert [layer["id"] for layer in json.loads((root / LAYERS_JSON).read_bytes())] == ["a", "b"]
    assert os.readlink(overlay / "b" / "diff") == "/mnt/2"
    assert (overlay / "b" / "link").read_text() == "p2"
    assert (overlay / "b" / "lower").read_text() == "l/p1"
    assert not (overlay / "a" / "lower").exists()
    assert os.readlink(overlay / "l" / "p2") == "../b/diff"
    told = lock_of(root)
    assert told != before
    assert len(told) == 64

    files.put(BOTH, places(BOTH))
    assert lock_of(root) == told, "nothing is new"


def test_a_layer_that_becomes_plain_files_is_found_there(
    root: Path, files: ImageStoreFiles
) -> None:
    files.put(BOTH, places(BOTH))
    files.put(BOTH, places(BOTH, "/plain"))

    assert os.readlink(root / "overlay" / "a" / "diff") == "/plain/1"
    assert sorted(os.listdir(root / "overlay")) == ["a", "b", "l"]


def test_an_archive_is_made_again_of_what_is_all_here(root: Path, files: ImageStoreFiles) -> None:
    recipe = root / "overlay-layers" / "a.tar-split.gz"
    files.put(BOTH, places(BOTH))
    assert os.readlink(recipe) == str(root / NOT_HERE_NAME)
    assert b"not all here yet" in gzip.decompress(recipe.read_bytes())

    files.put(BOTH, {**places(BOTH), "a": LayerPlace("/plain/1", "/plain/recipe")})
    assert os.readlink(recipe) == "/plain/recipe"

    files.put({}, {})
    assert list((root / "overlay-layers").glob("*.gz")) == []


def test_what_a_crash_left_is_made_right(root: Path, files: ImageStoreFiles) -> None:
    (root / "overlay" / "a").mkdir()
    (root / "overlay" / "b.new").mkdir()
    (root / "overlay" / "unknown").mkdir()
    (root / "overlay" / "l" / "p9").symlink_to("../unknown/diff")

    again = ImageStoreFiles(root)
    again.begin()
    again.put(BOTH, places(BOTH))

    assert sorted(os.listdir(root / "overlay")) == ["a", "b", "l"]
    assert sorted(os.listdir(root / "overlay" / "l")) == ["p1", "p2"]
    assert (root / "overlay" / "a" / "link").read_text() == "p1"


def test_a_layer_goes_after_it_is_told_of_no_more(root: Path, files: ImageStoreFiles) -> None:
    files.put(BOTH, places(BOTH))
    left = by_id(BOTH["a"])
    files.put(left, places(left))

    assert [layer["id"] for layer in json.loads((root / LAYERS_JSON).read_bytes())] == ["a"]
    assert os.listdir(root / "overlay" / "l") == ["p1"]


def test_when_a_layer_was_asked_for_is_kept(root: Path, files: ImageStoreFiles) -> None:
    files.put(BOTH, places(BOTH))
    for name in BOTH:
        os.utime(root / "overlay" / name / "link", (1000, 1000))
    files.put(BOTH, places(BOTH, "/plain"))

    files.asked_for("b")
    files.asked_for("not there")

    assert [files.asked_since(name, 2000) for name in ("a", "b", "not there")] == [
        False,
        True,
        False,
    ]


def test_what_an_engine_has_is_read_from_its_own_store(tmp_path: Path) -> None:
    (tmp_path / "overlay-layers").mkdir()
    (tmp_path / "overlay-images").mkdir()
    (tmp_path / "overlay-layers" / "layers.json").write_text('[{"id": "x", "parent": "a"}]')
    (tmp_path / "overlay-layers" / "volatile-layers.json").write_text('[{"id":"y","parent":"b"}]')
    (tmp_path / "overlay-images" / "images.json").write_text('[{"id": "i", "layer": "c"}]')

    assert named_in([tmp_path]) == {"a", "b", "c"}

    (tmp_path / "overlay-images" / "images.json").write_text("[{")
    with pytest.raises(NotKnown, match="images"):
        named_in([tmp_path])
    with pytest.raises(NotKnown, match="no store"):
        named_in([tmp_path / "elsewhere"])


def test_what_any_process_has_mounted_is_found(tmp_path: Path) -> None:
    for pid, number in (("1", 3), ("20", 4), ("21", 5), ("self", 6)):
        (tmp_path / pid / "ns").mkdir(parents=True)
        (tmp_path / pid / "ns" / "mnt").symlink_to(f"mnt:[{pid[0]}]")
        line = f"1 1 0:1 / /m rw - overlay overlay rw,lowerdir=/s/overlay/l/p{number}\n"
        (tmp_path / pid / "mountinfo").write_text(line)
    (tmp_path / "30").mkdir()  # it ends
    (tmp_path / "40").mkdir()  # of whose namespace nothing may be seen
    line = "1 1 0:1 / /m rw - overlay overlay rw,lowerdir=/s/overlay/l/p7\n"
    (tmp_path / "40" / "mountinfo").write_text(line)

    found = mounted_from(Path("/s"), tmp_path)
    assert found in ({3, 4, 7}, {3, 5, 7}), "each namespace once"

    (tmp_path / "50" / "mountinfo").mkdir(parents=True)
    with pytest.raises(NotKnown, match="50/mountinfo"):
        mounted_from(Path("/s"), tmp_path)
