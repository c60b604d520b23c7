"""The tree that a layer's entries make, and layers over each other."""

from __future__ import annotations

import stat
import tarfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.core.image_tree import ImageTree, NoSuchFile, inherit
from p2pdist.streaming.core.tar import Member, UnfitLayer
from p2pdist.streaming.core.tree import LayerTree, Node
from p2pdist.streaming.ports import ROOT_NODE
from tests.streaming.archives import (
    archive,
    device,
    directory,
    file,
    hardlink,
    members_of,
    name_of,
    symlink,
)


def tree_of(*members: tuple[object, bytes]) -> LayerTree:
    return LayerTree(members_of(archive(*members)))  # type: ignore[arg-type]


def at(tree: LayerTree, path: str) -> Node:
    node = tree.root
    for part in path.split("/"):
        node = node.children[part.encode()]
    return node


def test_files_lie_where_their_paths_say() -> None:
    tree = tree_of(
        directory("./", 0o700), file("./a/b/c", b"abc", mode=0o4711), symlink("s", "a/b/c")
    )
    assert tree.root.mode == stat.S_IFDIR | 0o700
    assert at(tree, "a/b").mode == stat.S_IFDIR | 0o755  # no entry names it
    assert at(tree, "a/b/c").mode == stat.S_IFREG | 0o4711
    assert at(tree, "a/b/c").size_bytes == 3
    assert at(tree, "s").target == b"a/b/c"
    assert at(tree, "s").size_bytes == 5


def test_numbers_follow_from_the_order_of_entries_alone() -> None:
    members = members_of(archive(file("z/1"), file("a"), hardlink("b", "a"), file("z/2")))
    first, second = LayerTree(members), LayerTree(members)
    assert first.root.number == ROOT_NODE
    numbers = {n.number: n.mode for n in first.nodes[1:]}
    assert numbers == {n.number: n.mode for n in second.nodes[1:]}
    assert sorted(numbers) == list(range(1, 6))
    assert all(first.node(number) is first.nodes[number] for number in numbers)
    assert first.node(0) is first.node(6) is None


names = st.sampled_from(
    [b"a", b"b", b"a/b", b"b/a", b"a/b/c", b"b/.wh.a", b"a/.wh..wh..opq", b".wh.b"]
)
kinds = st.sampled_from([tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE])


@given(st.lists(st.tuples(kinds, names, names), max_size=12))
def test_how_a_path_is_written_makes_no_other_tree(
    entries: list[tuple[bytes, bytes, bytes]],
) -> None:
    """Directories are found by how they are written; one that is gone is not found so."""
    members = [Member(kind, name, 0o644, 0, 0, 0, 0, 0, target) for kind, name, target in entries]
    otherwise = [
        msgspec.structs.replace(member, name=b"/" * number + b"./" + member.name)
        for number, member in enumerate(members)
    ]
    assert _shown(members) == _shown(otherwise)


def _shown(members: list[Member]) -> object:
    try:
        tree = LayerTree(members)
    except UnfitLayer as error:
        return str(error).partition(":")[0]
    return [
        (node.mode, node.links, node.opaque, {n: c.number for n, c in node.children.items()})
        for node in tree.nodes
    ]


def test_names_of_one_file_share_its_node() -> None:
    tree = tree_of(file("a", b"x"), hardlink("b", "a"), hardlink("d/c", "./a"))
    assert at(tree, "a") is at(tree, "b") is at(tree, "d/c")
    assert at(tree, "a").attributes().links == 3


def test_directories_count_those_below_them() -> None:
    tree = tree_of(directory("d"), directory("d/e"), directory("d/f"), file("d/g"))
    assert at(tree, "d").attributes().links == 4


def test_a_layer_tells_whether_anything_has_attributes() -> None:
    plain, opaque = file("a", b"x"), file("d/.wh..wh..opq")
    capable = file("b", b"", pax={"SCHILY.xattr.user.k": "v"})
    assert [tree_of(plain, *more).has_xattrs for more in ((), (opaque,), (capable,))] == [
        False, True, True,
    ]  # fmt: skip


def test_the_later_of_two_entries_stands() -> None:
    tree = tree_of(
        file("f", b"old"), file("f", b"newer"), directory("d"), file("d/x"), directory("d", 0o700),
        directory("e"), file("e/x"), file("e", b"file now"),
    )  # fmt: skip
    assert at(tree, "f").size_bytes == 5
    assert at(tree, "d").mode & 0o777 == 0o700
    assert b"x" in at(tree, "d").children
    assert stat.S_ISREG(at(tree, "e").mode)


def test_whiteouts_are_as_overlayfs_reads_them() -> None:
    tree = tree_of(file("d/.wh.gone"), file("o/.wh..wh..opq"), file("o/new"), file(".wh..wh.plnk"))
    gone = at(tree, "d/gone")
    assert gone.is_whiteout
    assert (gone.mode, gone.attributes().device) == (stat.S_IFCHR, 0)
    assert at(tree, "o").xattrs() == {b"trusted.overlay.opaque": b"y"}
    assert at(tree, "d").xattrs() == {}
    assert set(tree.root.children) == {b"d", b"o"}


@pytest.mark.parametrize("swapped", [False, True])
def test_a_whiteout_hides_lower_layers_and_not_its_own(swapped: bool) -> None:
    entries = [directory("d"), file("d/x"), file("f", b"new")]
    marks = [file(".wh.d"), file(".wh.f")]
    tree = tree_of(*(marks + entries if swapped else entries + marks))
    assert at(tree, "d").opaque
    assert b"x" in at(tree, "d").children
    assert at(tree, "f").size_bytes == 3


@pytest.mark.parametrize("name", ["trusted.overlay.redirect", "trusted.a", "foo.bar", "system.x"])
def test_a_layer_does_not_speak_to_overlayfs_nor_of_what_no_disk_keeps(name: str) -> None:
    pax = {f"SCHILY.xattr.{name}": "/etc", "SCHILY.xattr.user.a": "b"}
    assert at(tree_of(file("f", pax=pax)), "f").xattrs() == {b"user.a": b"b"}


def test_what_the_last_name_of_a_file_says_stands() -> None:
    pax = {"SCHILY.xattr.user.a": "b", "SCHILY.xattr.security.capability": "c"}
    first = file("a", b"x", mode=0o4755, pax=pax)
    tree = tree_of(first, hardlink("b", "a"))
    assert at(tree, "a").mode == stat.S_IFREG | 0o644
    assert at(tree, "a").attributes().mtime_ns == 0
    assert at(tree, "a").xattrs() == {b"user.a": b"b"}, "chown(2) takes capabilities away"
    assert at(tree, "a").size_bytes == 1
    again = tree_of(first, name_of(first, "b"))
    assert at(again, "a").mode == stat.S_IFREG | 0o4755
    assert set(at(again, "a").xattrs()) == {b"user.a", b"security.capability"}
    assert at(again, "a").attributes().mtime_ns == 1_700_000_000 * 10**9


def test_another_name_of_a_symbolic_link_leaves_its_mode() -> None:
    tree = tree_of(symlink("s", "x"), hardlink("t", "s"))
    assert at(tree, "t").mode == stat.S_IFLNK | 0o777
    assert at(tree, "t").target == b"x"


def test_a_directory_that_is_named_again_keeps_its_attributes() -> None:
    first, second = directory("d"), directory("d", 0o700)
    first[0].pax_headers = {"SCHILY.xattr.user.a": "1", "SCHILY.xattr.user.b": "1"}
    second[0].pax_headers = {"SCHILY.xattr.user.b": "2"}
    tree = tree_of(first, second, directory("d", 0o711))
    assert at(tree, "d").mode == stat.S_IFDIR | 0o711
    assert at(tree, "d").xattrs() == {b"user.a": b"1", b"user.b": b"2"}


def test_devices_are_packed_as_stat_tells_them() -> None:
    import os

    tree = tree_of(device("a", 1, 3), device("b", 259, 300_000))
    assert at(tree, "a").attributes().device == os.makedev(1, 3)
    assert at(tree, "b").attributes().device == os.makedev(259, 300_000)


@pytest.mark.parametrize(
    "members",
    [
        [file("../out")],
        [file("a/../../out")],
        [symlink("l", "/etc"), file("l/passwd")],
        [file("f"), file("f/x")],
        [hardlink("l", "nowhere")],
        [directory("d"), hardlink("l", "d")],
        [hardlink("l", "../x")],
        [file(".wh."), file("x")],
        [file(".wh...")],
        [file(".wh.d/x")],
        [file("/".join("d" * 1100))],
    ],
)
def test_what_readers_understand_differently_makes_a_layer_unfit(
    members: list[tuple[object, bytes]],
) -> None:
    with pytest.raises(UnfitLayer):
        tree_of(*members)


# --- layers over each other ---------------------------------------------------------------------


def image(*layers: list[tuple[object, bytes]]) -> ImageTree:
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
