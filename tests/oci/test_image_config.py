"""What a config blob says of its image, or that it is none."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.ids import digest_of
from p2pdist.oci.image_config import (
    CONFIG_BYTES_MAX,
    LAYERS_MAX,
    diff_ids_of_config,
    platform_of_config,
)
from p2pdist.oci.manifest import Platform

LOW, HIGH = digest_of(b"low"), digest_of(b"high")


def config(**more: object) -> bytes:
    return json.dumps({"os": "linux", "architecture": "arm64", **more}).encode()


def with_layers(*diff_ids: object) -> bytes:
    return config(rootfs={"type": "layers", "diff_ids": diff_ids})


def test_layers_are_named_from_the_lowest_up() -> None:
    assert diff_ids_of_config(with_layers(LOW, HIGH)) == [LOW, HIGH]
    assert diff_ids_of_config(with_layers()) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        config(),
        with_layers("sha256:zz"),
        with_layers(LOW.upper()),
        with_layers(7),
        with_layers(*[LOW] * (LAYERS_MAX + 1)),
        with_layers(LOW) + b" " * CONFIG_BYTES_MAX,
    ],
)
def test_what_names_no_layers_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its text says why, in many ways
        diff_ids_of_config(body)


def test_as_many_layers_as_there_may_be() -> None:
    assert len(diff_ids_of_config(with_layers(*[LOW] * LAYERS_MAX))) == LAYERS_MAX


def test_a_platform_is_what_the_config_says() -> None:
    assert platform_of_config(config()) == Platform("linux", "arm64", "")
    assert platform_of_config(config(variant="v8")) == Platform("linux", "arm64", "v8")
    assert platform_of_config(config(variant=None)) == Platform("linux", "arm64", "")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        config(os=""),
        config(architecture=""),
        config(os=7),
        config(os="x" * 65),
        config() + b" " * CONFIG_BYTES_MAX,
    ],
)
def test_artifacts_run_on_nothing(body: bytes) -> None:
    assert platform_of_config(body) is None


@given(st.binary(max_size=300))
def test_whatever_comes_is_refused_or_read(body: bytes) -> None:
    platform_of_config(body)
    with contextlib.suppress(ValueError):
        diff_ids_of_config(body)
