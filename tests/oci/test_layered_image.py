"""What a mirror tells of an image's layers, from its bytes and back."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.chains import chain_ids
from p2pdist.oci.layered_image import (
    BODY_BYTES_MAX,
    decode_layered_image,
    encode_layered_image,
    layered_image,
)
from p2pdist.oci.names import ImageName

NAME = ImageName("docker.io", "library/app")


def digests(*words: str) -> list[Digest]:
    return [digest_of(word.encode()) for word in words]


def test_what_is_told_comes_back() -> None:
    blobs = [(digest, number) for number, digest in enumerate(digests("x", "y"))]
    image = layered_image(NAME, blobs, digests("a", "b"))

    assert decode_layered_image(encode_layered_image(image)) == image
    assert [layer.chain_id for layer in image.layers] == list(chain_ids(digests("a", "b")))


def test_a_config_of_other_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="1 layers, and a config that names 2"):
        layered_image(NAME, [(digest_of(b"x"), 1)], digests("a", "b"))


LAYER = {"digest": digest_of(b"x"), "size": 1, "diffId": digest_of(b"a")}
WHOLE = {"upstream": "docker.io", "repository": "library/app", "layers": [LAYER]}


@pytest.mark.parametrize(
    "changed",
    [
        {"layers": [{**LAYER, "digest": "sha256:zz"}]},
        {"layers": [{**LAYER, "size": -1}]},
        {"layers": [LAYER] * 1025},
        {"repository": "../../etc"},
        {"repository": "A"},
        {"upstream": None},
    ],
)
def test_what_is_no_image_is_refused(changed: dict[str, object]) -> None:
    assert decode_layered_image(json.dumps(WHOLE).encode()).layers
    with pytest.raises(ValueError, match=r"."):
        decode_layered_image(json.dumps({**WHOLE, **changed}).encode())


def test_a_long_answer_is_not_read() -> None:
    with pytest.raises(ValueError, match="bytes"):
        decode_layered_image(json.dumps(WHOLE).encode() + b" " * BODY_BYTES_MAX)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_image_or_a_value_error(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        decode_layered_image(body)
