"""What an image store says of its layers, and which of them may go."""

from __future__ import annotations

import hashlib
import json

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.streaming.snapshotter.core.image_store import (
    GZIP,
    PLAIN,
    StoredLayer,
    layer_ids,
    layers_json,
    lower_of,
    mounted,
    named_by_images,
    named_by_layers,
    too_many,
    unused,
)

LOW, HIGH = digest_of(b"low"), digest_of(b"high")


def stored(name: str, parent: str = "", number: int = 1) -> StoredLayer:
    return StoredLayer(
        name, parent, number, "2026-01-02T03:04:05Z", digest_of(b"blob"), 10, LOW, 20, GZIP
    )


def by_id(*layers: StoredLayer) -> dict[str, StoredLayer]:
    return {layer.id: layer for layer in layers}


TREE = by_id(stored("a"), stored("b", "a", 2), stored("c", "b", 3), stored("d", "a", 4))


def test_layers_are_called_what_engines_call_them() -> None:
    low = LOW.removeprefix("sha256:")
    above = hashlib.sha256(f"{low}+{HIGH.removeprefix('sha256:')}".encode()).hexdigest()

    assert list(layer_ids([LOW, HIGH])) == [low, above]
    assert list(layer_ids([])) == []


def test_what_is_told_of_a_layer_is_what_the_library_reads() -> None:
    plain = StoredLayer("b", "a", 2, "2026-01-02T03:04:05Z", HIGH, 30, HIGH, 30, PLAIN)

    assert json.loads(layers_json([stored("a"), plain])) == [
        {
            "id": "a",
            "created": "2026-01-02T03:04:05Z",
            "compressed-diff-digest": digest_of(b"blob"),
            "compressed-size": 10,
            "diff-digest": LOW,
            "diff-size": 20,
            "compression": 2,
        },
        {
            "id": "b",
            "parent": "a",
            "created": "2026-01-02T03:04:05Z",
            "compressed-diff-digest": HIGH,
            "compressed-size": 30,
            "diff-digest": HIGH,
            "diff-size": 30,
        },
    ]


def test_a_layer_lies_upon_those_below_from_the_top_one_down() -> None:
    assert lower_of(TREE["c"], TREE) == "l/p2:l/p1"
    assert lower_of(TREE["a"], TREE) == ""


def test_an_image_has_no_more_layers_than_a_mount_has_room_for() -> None:
    store = "/var/lib/p2pdist/snapshotter/images"
    assert not too_many(60, store)
    assert too_many(70, store)


def test_what_engines_have_is_named() -> None:
    layers = b'[{"id": "x", "parent": "c", "more": [1]}, {"id": "y"}]'
    images = b'[{"id": "i", "layer": "d", "mapped-layers": ["e"]}, {"id": "no layers"}]'

    assert named_by_layers(layers) == {"c"}
    assert named_by_images(images) == {"d", "e"}
    assert named_by_layers(b"") == named_by_images(b"[]") == set()


@pytest.mark.parametrize("body", [b"{", b"{}", b"[1]", b'"\xff"', b'[{"parent": 1, "layer": 2}]'])
def test_what_cannot_be_read_is_not_taken_for_nothing(body: bytes) -> None:
    for read in (named_by_layers, named_by_images):
        with pytest.raises(ValueError, match=r"."):
            read(body)


def test_what_is_mounted_is_told_by_its_short_name() -> None:
    lines = (
        "36 25 0:41 / /x/merged rw - overlay overlay rw,lowerdir=/s/overlay/l/p12:/s/overlay/l/p3,"
        "upperdir=/g/overlay/u/diff\n"
        "37 25 0:42 / /y rw - overlay overlay rw,lowerdir+=/s/overlay/l/p4\n"
        "38 25 0:43 / /z rw - overlay overlay rw,lowerdir=/other/overlay/l/p5:/s/overlay/l/ABCD\n"
    )

    assert mounted(lines, "/s") == {12, 3, 4}


def test_what_is_used_stays_with_all_below_it() -> None:
    assert unused(TREE, set(), set(), set()) == ["d", "c", "b", "a"], "from the top ones down"
    assert unused(TREE, {"b"}, set(), set()) == ["d", "c"]
    assert unused(TREE, {"unknown"}, {3}, set()) == ["d"]
    assert unused(TREE, set(), set(), {"d"}) == ["c", "b"]
