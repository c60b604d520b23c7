"""An image that is about to be pulled, on its way to the snapshotter."""

from __future__ import annotations

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.oci.wanted_images import (
    BODY_BYTES_MAX,
    WantedImage,
    decode_wanted_image,
    encode_wanted_image,
    has_snapshotters,
    looks_into_stores,
)

WANTED = WantedImage(
    7,
    layered_image(
        ImageName("docker.io", "library/app"), [(digest_of(b"blob"), 4)], [digest_of(b"archive")]
    ),
)


def test_it_comes_as_it_was_sent() -> None:
    assert decode_wanted_image(encode_wanted_image(WANTED)) == WANTED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"number": -1, "image": {}}',
        b'{"number": 1, "image": {}}',
        b'{"number": 1, "image": 3}',
        b" " * (BODY_BYTES_MAX + 1),
    ],
)
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_wanted_image(body)


@pytest.mark.parametrize(
    ("agent", "looks"),
    [
        ("containers/5.23.1 (github.com/containers/image)", True),
        ("Buildah/1.28.2", True),
        ("cri-o/1.30.0 go/go1.22 os/linux arch/amd64", True),
        ("skopeo/1.9.3", False),
        ("containerd/1.6.20", False),
        ("", False),
    ],
)
def test_engines_that_look_for_layers_are_known_by_name(agent: str, *, looks: bool) -> None:
    assert looks_into_stores(agent) is looks


@pytest.mark.parametrize(
    ("agent", "has"),
    [
        ("containerd/1.6.20~ds1", True),
        ("containerd/2.1.9", True),
        ("docker/26.1.5 go/go1.24.4 os/linux arch/amd64 UpstreamClient(Go-http-client/1.1)", False),
        ("containers/5.23.1 (github.com/containers/image)", False),
        ("", False),
    ],
)
def test_engines_that_ask_snapshotters_are_known_by_name(agent: str, *, has: bool) -> None:
    assert has_snapshotters(agent) is has
