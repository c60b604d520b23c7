from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from p2pdist.demo.image import DemoImage, make_image
from p2pdist.model.ids import digest_of

SIZE = 4_000_000


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> DemoImage:
    return make_image(tmp_path_factory.mktemp("image"), SIZE)


def test_the_image_has_about_the_size_asked_for(image: DemoImage) -> None:
    assert 0.9 * SIZE < image.size_bytes < 1.2 * SIZE


def test_every_blob_has_its_digest(image: DemoImage) -> None:
    for digest, path in image.blobs.items():
        assert digest_of(path.read_bytes()) == digest


def test_the_config_names_the_uncompressed_layers(image: DemoImage) -> None:
    manifest = json.loads(image.manifest)
    config = json.loads(image.blobs[manifest["config"]["digest"]].read_bytes())
    tars = []
    for layer in manifest["layers"]:
        data = image.blobs[layer["digest"]].read_bytes()
        tars.append(gzip.decompress(data) if layer["mediaType"].endswith("+gzip") else data)

    assert config["rootfs"]["diff_ids"] == [digest_of(tar) for tar in tars]


def test_there_are_compressed_and_plain_layers(image: DemoImage) -> None:
    kinds = [layer["mediaType"].endswith("+gzip") for layer in json.loads(image.manifest)["layers"]]

    assert len(kinds) >= 5
    assert {True, False} == set(kinds)


def test_one_seed_gives_one_image(image: DemoImage, tmp_path: Path) -> None:
    assert make_image(tmp_path, SIZE).manifest_digest == image.manifest_digest
