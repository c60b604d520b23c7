"""Image names inside: equal by what they name."""

from __future__ import annotations

import dataclasses

import pytest

from p2pdist.oci.names import ImageName


def test_a_name_is_shown_with_its_registry() -> None:
    assert str(ImageName("localhost:5000", "team/app")) == "localhost:5000/team/app"


def test_a_name_is_a_key_that_nothing_changes() -> None:
    name = ImageName("docker.io", "library/app")

    assert {name: 1}[ImageName("docker.io", "library/app")] == 1
    assert name != ImageName("ghcr.io", "library/app")
    with pytest.raises(dataclasses.FrozenInstanceError):
        name.upstream = "ghcr.io"  # type: ignore[misc]  # what is tried here
