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
    LIST_COMMAS_MAX,
    MANIFEST_ACCEPT,
    MANIFEST_MEDIA_TYPES,
    OCI_ARTIFACT,
    OCI_INDEX,
    OCI_MANIFEST,
    choose_platform,
    media_type_of,
    parse_image,
    parse_manifest,
    shows_manifest,
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
        dump(config={"Cmd": ["sh"]}, rootfs={"type": "layers"}),
        dump(manifests={}),
        dump(items=[BLOB]),
        dump(mediaType="application/json", items=[BLOB]),
        dump(mediaType="a b/c\r\nX-Evil: 1", items=[BLOB]),
    ],
    ids=range(23),
)
def test_what_is_no_manifest(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"not a (manifest|digest)|manifest (of|schema|that)"):
        parse_manifest(body)


@pytest.mark.parametrize("claimed", [DOCKER_LIST, OCI_INDEX, OCI_ARTIFACT])
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


# --- types beyond Docker's and OCI's --------------------------------------------------------------

ORAS = "application/vnd.cncf.oras.artifact.manifest.v1+json"
BUNDLE = "application/vnd.example.bundle.v1+json"
SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+prettyjws"


@pytest.mark.parametrize(
    ("document", "told", "media_type", "kind", "blobs"),
    [
        ({"mediaType": ORAS, "blobs": [BLOB]}, "", ORAS, "artifact", 1),
        ({"mediaType": BUNDLE, "config": BLOB, "layers": [BLOB]}, "", BUNDLE, "image", 2),
        ({"mediaType": BUNDLE, "items": [BLOB]}, "", BUNDLE, "opaque", 0),
        ({"mediaType": BUNDLE, "layers": [BLOB], "manifests": [BLOB]}, "", BUNDLE, "index", 2),
        ({"items": [BLOB]}, f"{BUNDLE}; charset=utf-8", BUNDLE, "opaque", 0),
        ({"config": BLOB, "layers": [BLOB]}, BUNDLE, BUNDLE, "image", 2),
        ({"mediaType": BUNDLE, "config": BLOB}, OCI_MANIFEST, BUNDLE, "image", 1),
    ],
)
def test_a_type_that_is_not_known_passes(
    document: dict[str, Any], told: str, media_type: str, kind: str, blobs: int
) -> None:
    info = parse_manifest(dump(**document), told)
    assert (info.media_type, info.kind) == (media_type, kind)
    assert media_type_of(dump(**document), told) == media_type
    assert len([*info.manifests, *info.layers, *filter(None, [info.config])]) == blobs


def test_a_body_keeps_the_type_that_it_names_itself() -> None:
    assert media_type_of(dump(mediaType=OCI_INDEX, manifests=[]), BUNDLE) == OCI_INDEX


@pytest.mark.parametrize("told", ["text/html", "application/json", "application/octet-stream"])
def test_what_says_only_that_it_is_text_or_bytes_names_no_type(told: str) -> None:
    assert media_type_of(dump(manifests=[]), told) == OCI_INDEX
    with pytest.raises(ValueError, match="not a manifest"):
        media_type_of(dump(items=[BLOB]), told)


def test_schema_1_is_refused_by_its_type_too() -> None:
    with pytest.raises(ValueError, match="schema 1"):
        parse_manifest(dump(schemaVersion=1, fsLayers=[]), SCHEMA_1)


def test_an_image_that_is_needed_whole_has_a_known_form() -> None:
    assert parse_image(dump(config=BLOB, layers=[BLOB])).kind == "image"
    with pytest.raises(ValueError, match="no image that is known"):
        parse_image(dump(mediaType=BUNDLE, items=[BLOB]))
    with pytest.raises(ValueError, match="1 unusable"):
        parse_image(dump(config=BLOB, layers=[BLOB, {"size": 1}]))


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"config": BLOB}, True),
        ({"mediaType": OCI_INDEX, "manifests": None}, True),
        ({"mediaType": BUNDLE, "layers": [BLOB], "config": BLOB}, True),
        ({"mediaType": BUNDLE, "content": {}}, False),
        ({"config": {"Cmd": ["sh"]}, "mediaType": None}, False),
    ],
)
def test_a_blob_with_a_type_of_its_own_is_no_manifest(
    document: dict[str, Any], shown: bool
) -> None:
    assert shows_manifest(dump(**document)) is shown


# --- what nobody reads ----------------------------------------------------------------------------

ODD = [None, 7, True, "x", [], {}, [[1]], {"a": None}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_odd_values_in_fields_that_nobody_needs(odd: Any) -> None:
    child = {**BLOB, "mediaType": odd, "platform": odd, "annotations": odd}
    variants = {**BLOB, "platform": {"os": odd, "architecture": odd, "variant": odd}}
    index_info = parse_manifest(dump(manifests=[child, variants], annotations=odd, subject=odd))
    image_info = parse_manifest(
        dump(mediaType=None, artifactType=odd, config=child, layers=[child]), OCI_MANIFEST
    )
    assert [found.digest for found in index_info.manifests] == [BLOB["digest"]] * 2
    assert (len(image_info.layers), index_info.skipped, image_info.skipped) == (1, 0, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {**BLOB, "digest": "../../etc/passwd"},
        {**BLOB, "digest": None},
        {**BLOB, "size": -1},
        {**BLOB, "size": 1 << 60},
        {**BLOB, "size": "1"},
        {"size": 1},
        None,
        [],
        7,
    ],
)
def test_an_unusable_descriptor_is_left_out(bad: Any) -> None:
    info = parse_manifest(dump(mediaType=OCI_MANIFEST, config=BLOB, layers=[bad, BLOB]))
    assert ([layer.digest for layer in info.layers], info.skipped) == ([BLOB["digest"]], 1)


def test_an_index_of_ten_thousand_entries() -> None:
    entry = {**BLOB, "platform": {"os": "linux", "architecture": "amd64"}}
    body = dump(mediaType=OCI_INDEX, manifests=[entry] * 10_000)
    info = parse_manifest(body)
    assert (len(info.manifests), info.skipped) == (10_000, 0)


def test_a_list_of_a_million_nothings_is_not_built() -> None:
    nothing = b'{"mediaType":"%s","manifests":[%s1]}' % (
        OCI_INDEX.encode(),
        b"1," * (LIST_COMMAS_MAX + 1),
    )
    info = parse_manifest(nothing)
    assert (info.manifests, info.skipped) == ((), 1)


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
