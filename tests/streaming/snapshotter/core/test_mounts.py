"""What engines mount, as containerd's own overlayfs snapshotter has them mount it."""

from __future__ import annotations

import pytest

from p2pdist.streaming.snapshotter.core.mounts import OVERLAY_OPTIONS, Mount, Places, mounts_of
from p2pdist.streaming.snapshotter.core.snapshots import Kind

OWN = Places("/own/fs", "/own/work")


def test_the_first_layer_of_an_image_is_written_where_it_lies() -> None:
    assert mounts_of(Kind.ACTIVE, OWN, []) == [Mount("bind", "/own/fs", ("rw", "rbind"))]


def test_a_container_writes_above_its_layers() -> None:
    (mount,) = mounts_of(Kind.ACTIVE, OWN, ["/high", "/low"])

    assert (mount.kind, mount.source) == ("overlay", "overlay")
    assert mount.options == (
        *OVERLAY_OPTIONS,
        "workdir=/own/work",
        "upperdir=/own/fs",
        "lowerdir=/high:/low",
    )


@pytest.mark.parametrize(
    ("below", "source"), [([], "/own/fs"), (["/low"], "/low")], ids=["empty", "one layer"]
)
def test_a_view_of_one_layer_is_that_layer_and_cannot_be_written(
    below: list[str], source: str
) -> None:
    assert mounts_of(Kind.VIEW, OWN, below) == [Mount("bind", source, ("ro", "rbind"))]


def test_a_view_of_several_layers_has_nowhere_to_write() -> None:
    (mount,) = mounts_of(Kind.VIEW, Places("/own/fs"), ["/high", "/low"])

    assert mount.options == (*OVERLAY_OPTIONS, "lowerdir=/high:/low")
