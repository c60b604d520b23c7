"""The tree that a layer's entries make."""

from __future__ import annotations

import stat
import tarfile

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.streaming.core.tar import Member, UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.ports import ROOT_NODE
from tests.streaming.archives import (
    Entry,
    archive,
    at,
    device,
    directory,
    file,
    hardlink,
    members_of,
    name_of,
    symlink,
    tree_of,
)


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
    members: list[Entry],
) -> None:
    with pytest.raises(UnfitLayer):
        tree_of(*members)
