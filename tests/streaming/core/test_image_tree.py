"""Layers over each other, as overlayfs would show them."""

from __future__ import annotations

import pytest

from p2pdist.streaming.core.image_tree import ImageTree, NoSuchFile, inherit
from tests.streaming.archives import Entry, at, directory, file, symlink, tree_of


def image(*layers: list[Entry]) -> ImageTree:
    return ImageTree([tree_of(*members) for members in layers])


def names(tree: ImageTree, path: bytes) -> list[bytes]:
    return list(tree.children(tree.find(path)))


def test_upper_layers_hide_lower_ones() -> None:
    tree = image(
        [
            file("etc/a", b"low"),
            file("etc/b", b"low"),
            file("gone/x"),
            file("opaque/old"),
            file("f"),
        ],
        [
            file("etc/a", b"upper"),
            file(".wh.gone"),
            file("opaque/.wh..wh..opq"),
            file("opaque/new"),
        ],
        [file("etc/.wh.b"), directory("f"), file("f/x")],
    )
    assert tree.find(b"/etc/a").layer == 1
    assert tree.find(b"/etc/a").node.size_bytes == 5
    assert names(tree, b"/") == [b"etc", b"f", b"opaque"]
    assert names(tree, b"/etc") == [b"a"]
    assert names(tree, b"/opaque") == [b"new"]
    assert names(tree, b"/f") == [b"x"]
    for path in (b"/etc/b", b"/gone/x", b"/opaque/old"):
        with pytest.raises(NoSuchFile, match="there is no"):
            tree.find(path)


def test_a_directory_that_a_layer_does_not_name_is_as_the_layers_below_say() -> None:
    pax = {"SCHILY.xattr.user.a": "b"}
    low = tree_of(directory("etc", 0o750), directory("etc/d", 0o711), directory("gone", 0o700))
    mid = tree_of(file("etc/x"), file(".wh.gone"), file("opaque/.wh..wh..opq"), file("etc/d/y"))
    top = tree_of(file("etc/d/z"), file("gone/new"), directory("etc", 0o705), file("f", pax=pax))
    inherit([low, mid, top])
    assert [at(tree, "etc").mode & 0o777 for tree in (mid, top)] == [0o750, 0o705]
    assert [at(tree, "etc/d").mode & 0o777 for tree in (mid, top)] == [0o711, 0o711]
    assert at(top, "gone").mode & 0o777 == 0o755
    assert b"y" in at(mid, "etc/d").children


def test_a_name_comes_back_above_its_whiteout() -> None:
    tree = image([file("d/old")], [file(".wh.d")], [file("d/new")])
    assert names(tree, b"/d") == [b"new"]


def test_links_are_followed_within_the_image() -> None:
    tree = image(
        [file("usr/lib/x", b"x"), symlink("lib", "usr/lib"), symlink("abs", "/lib/x")],
        [symlink("usr/up", "../../../../lib"), symlink("loop", "loop"), file("d/f")],
    )
    assert tree.find(b"/lib/x").path == b"/usr/lib/x"
    assert tree.find(b"abs").path == b"/usr/lib/x"
    assert tree.find(b"/usr/up/x").path == b"/usr/lib/x"
    assert tree.find(b"/d/../d/./f").path == b"/d/f"
    assert tree.find(b"/abs", follow=False).node.is_link
    with pytest.raises(NoSuchFile, match="too many"):
        tree.find(b"/loop")
    with pytest.raises(NoSuchFile, match="/d/f is not a directory"):
        tree.find(b"/d/f/g")
