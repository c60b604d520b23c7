from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.oci.manifest import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    INDEX_CHILDREN_MAX,
    LAYERS_MAX,
    MANIFEST_ACCEPT,
    MANIFEST_MEDIA_TYPES,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    choose_platform,
    media_type_of,
    parse_manifest,
)
from tests.conformance.bodies import SHAPES, artifact, descriptor, image, index

BLOB = descriptor(b"x", "m")


def dump(**document: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, **document}).encode()


def platforms(*triples: tuple[str, str, str]) -> bytes:
    children = [
        descriptor(
            "/".join(triple).encode(),
            OCI_MANIFEST,
            platform={"os": triple[0], "architecture": triple[1], "variant": triple[2]},
        )
        for triple in triples
    ]
    return dump(manifests=children)


def test_an_image() -> None:
    info = parse_manifest(image(b"one", b"two"))
    assert (info.kind, info.media_type) == ("image", OCI_MANIFEST)
    assert info.config is not None
    assert [layer.digest for layer in info.layers] == [digest_of(b"one"), digest_of(b"two")]
    assert [layer.size for layer in info.layers] == [3, 3]


def test_an_index() -> None:
    child = image(b"one")
    info = parse_manifest(index(child))
    assert info.kind == "index"
    (found,) = info.manifests
    assert found.digest == digest_of(child)
    assert found.platform is not None
    assert (found.platform.os, found.platform.architecture) == ("linux", "amd64")


def test_the_blobs_of_an_artifact_are_its_layers() -> None:
    info = parse_manifest(artifact())
    assert (info.kind, info.config) == ("artifact", None)
    assert [layer.digest for layer in info.layers] == [digest_of(b"sbom")]


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_the_media_type_of_all_shapes(shape: str) -> None:
    body, media_type = SHAPES[shape]
    assert media_type_of(body) == parse_manifest(body, media_type).media_type == media_type


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        ({"config": BLOB, "layers": []}, OCI_MANIFEST),
        ({"manifests": []}, OCI_INDEX),
        ({"blobs": []}, OCI_ARTIFACT),
        ({"mediaType": "application/unheard-of", "manifests": []}, OCI_INDEX),
        ({"mediaType": OCI_INDEX, "manifests": None}, OCI_INDEX),
    ],
)
def test_without_a_known_field_the_structure_tells(
    document: dict[str, Any], media_type: str
) -> None:
    assert media_type_of(dump(**document)) == media_type


def test_a_content_type_decides_between_types_of_one_structure() -> None:
    body = dump(config=BLOB, layers=[])
    assert parse_manifest(body, f"{DOCKER_MANIFEST}; charset=utf-8").media_type == DOCKER_MANIFEST


def test_a_content_type_of_no_manifest_is_ignored() -> None:
    assert parse_manifest(image(), "application/json").media_type == OCI_MANIFEST


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"<html>",
        b"\xff\xfe",
        b'{"layers":' + b"[" * 100_000,
        b'{"unknown":' + b'{"a":' * 100_000,
        image() + b" " * (4 * 1024 * 1024),
        dump(schemaVersion=1, fsLayers=[]),
        dump(config=BLOB, layers=[], manifests=[]),
        dump(mediaType=OCI_INDEX, config=BLOB, layers=[]),
        dump(mediaType=OCI_MANIFEST, manifests=[]),
        dump(mediaType=DOCKER_MANIFEST),
        dump(config={**BLOB, "digest": "sha256:1"}),
        dump(config={**BLOB, "size": -1}),
        dump(config={**BLOB, "size": 1 << 60}),
        dump(config={**BLOB, "size": "1"}),
        dump(config=BLOB, layers=[{"digest": "../../etc/passwd", "size": 1}]),
        dump(manifests=[BLOB] * (INDEX_CHILDREN_MAX + 1)),
        dump(config=BLOB, layers=[BLOB] * (LAYERS_MAX + 1)),
    ],
    ids=range(21),
)
def test_what_is_no_manifest(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a (manifest|digest)|manifest (of|schema|that)"):
        parse_manifest(body)


@pytest.mark.parametrize("claimed", [DOCKER_LIST, OCI_INDEX, DOCKER_MANIFEST])
def test_a_content_type_that_the_body_contradicts(claimed: str) -> None:
    with pytest.raises(ValueError, match="Content-Type"):
        parse_manifest(image(), claimed)


@given(st.recursive(st.none() | st.integers() | st.text(), lambda x: st.lists(x)), st.data())
def test_any_json_gives_a_manifest_or_a_value_error(junk: Any, data: st.DataObject) -> None:
    keys = st.sampled_from(["config", "layers", "manifests", "blobs", "mediaType", "subject"])
    document = data.draw(st.dictionaries(keys, st.just(junk)))
    try:
        info = parse_manifest(dump(**document))
    except ValueError:
        return
    assert info.media_type in MANIFEST_MEDIA_TYPES


def test_a_foreign_layer_is_told_apart() -> None:
    layers = [BLOB, {**BLOB, "urls": ["https://elsewhere/x"]}]
    info = parse_manifest(dump(config=BLOB, layers=layers))
    assert [layer.foreign for layer in info.layers] == [False, True]


def test_upstream_is_asked_for_every_type() -> None:
    assert set(MANIFEST_ACCEPT) == MANIFEST_MEDIA_TYPES


ARM = [("linux", "arm", v) for v in ("v5", "v6", "v7")]


@pytest.mark.parametrize(
    ("children", "wanted", "chosen"),
    [
        ([("linux", "amd64", ""), ("linux", "arm64", "v8")], ("linux", "amd64", ""), 0),
        ([("linux", "amd64", ""), ("linux", "arm64", "v8")], ("linux", "arm64", ""), 1),
        ([("linux", "amd64", ""), ("linux", "arm64", "")], ("Linux", "aarch64", "v8"), 1),
        (ARM, ("linux", "arm", "v6"), 1),
        (ARM, ("linux", "arm", ""), 2),
        ([("linux", "amd64", "v3"), ("linux", "amd64", "")], ("linux", "amd64", ""), 1),
        ([("linux", "amd64", ""), ("linux", "amd64", "v3")], ("linux", "x86_64", "v4"), 1),
        ([("linux", "amd64", ""), ("linux", "amd64", "")], ("linux", "amd64", ""), 0),
        ([("unknown", "unknown", ""), ("windows", "amd64", "")], ("linux", "amd64", ""), None),
        ([], ("linux", "amd64", ""), None),
    ],
)
def test_the_child_for_a_platform(
    children: list[tuple[str, str, str]], wanted: tuple[str, str, str], chosen: int | None
) -> None:
    info = parse_manifest(platforms(*children))
    found = choose_platform(info, *wanted)
    assert found is (None if chosen is None else info.manifests[chosen])
