"""Layers as plain files: what is on the disk is what the archive says, to the last attribute."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.core.tree import LayerTree
from p2pdist.streaming.ports import Attributes
from p2pdist.streaming.snapshotter import unpack_worker
from p2pdist.streaming.snapshotter.layer_files import FILES, write_layer
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.unpack_worker import unpack_layer
from p2pdist.streaming.snapshotter.worker import MIRROR_NAME, GrowingLayers
from p2pdist.streaming.unpacking import checked, unpack
from tests.e2e.harness.processes import run
from tests.fakes.pulling import random_bytes
from tests.faults.records import recorded
from tests.streaming.archives import (
    archive,
    device,
    directory,
    file,
    gzipped,
    hardlink,
    index_of,
    members_of,
    symlink,
    text,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CAPABILITY = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
ARCHIVE = archive(
    directory("etc", 0o751),
    file("etc/passwd", b"root\n", mode=0o640, pax={"mtime": "1700000000.123456789"}),
    file("etc/replaced", b"first"),
    file("noise", random_bytes(5 << 20, 3)),
    file("bin/ping", b"\x7fELF", mode=0o4755, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
    hardlink("bin/ping2", "bin/ping"),
    file("etc/replaced", b"second, and longer"),
    symlink("lib", "usr/lib"),
    symlink("out", "../../../../etc"),
    file("caf\udce9/\udcff", b"not utf-8", pax={}),
    device("dev/null", 1, 3),
    file("empty"),
    file("gone/.wh.old"),
    file("hidden/.wh..wh..opq"),
    file("hidden/new", b"new", pax={"SCHILY.xattr.user.a": "b" * 3000}),
    *(file(f"many/{number:04}", text(number, number)) for number in range(300)),
)
SPANS = [ARCHIVE[at : at + 100_000] for at in range(0, len(ARCHIVE), 100_000)]


@pytest.fixture
def tree() -> LayerTree:
    return LayerTree(members_of(ARCHIVE))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "fs"
    path.mkdir()
    return path


def walk(tree: LayerTree) -> Iterator[tuple[bytes, int]]:
    waiting = [(b"", tree.root)]
    while waiting:
        path, node = waiting.pop()
        yield path, node.number
        waiting += [(path + b"/" + name, child) for name, child in node.children.items()]


def told(path: bytes, number: int, links: int) -> Attributes:
    """What the disk says, as a tree would."""
    status = os.lstat(path)
    size = 4096 if stat.S_ISDIR(status.st_mode) else status.st_size
    return Attributes(
        number,
        status.st_mode,
        status.st_uid,
        status.st_gid,
        size,
        status.st_mtime_ns,
        links if stat.S_ISDIR(status.st_mode) else status.st_nlink,
        status.st_rdev,
    )


def test_every_file_is_what_the_archive_says(tree: LayerTree, target: Path) -> None:
    unpack(tree, SPANS, os.fsencode(target))

    paths = list(walk(tree))
    for below, number in paths:
        node, path = tree.node(number), os.fsencode(target) + below
        assert node is not None
        assert told(path, number, node.links) == node.attributes(), below
        found = {os.fsencode(x) for x in os.listxattr(path, follow_symlinks=False)}
        assert found == set(node.xattrs()), below
        for name, value in node.xattrs().items():
            assert os.getxattr(path, name, follow_symlinks=False) == value
        if node.is_link:
            assert os.readlink(path) == node.target
        elif stat.S_ISREG(node.mode):
            with open(path, "rb") as opened:
                assert opened.read() == ARCHIVE[node.offset : node.offset + node.size_bytes]
    there = sum(len(names) + len(files) for _, names, files in os.walk(os.fsencode(target)))
    assert there == len(paths) - 1
    assert (target / "etc" / "replaced").read_bytes() == b"second, and longer"
    assert (target / "bin" / "ping").samefile(target / "bin" / "ping2")


@pytest.mark.parametrize("size", [1, 511, 1 << 20])
def test_pieces_may_be_of_any_length(tree: LayerTree, target: Path, size: int) -> None:
    small = archive(file("a", b"x" * 1000), file("b", b"y" * 700))
    pieces = [small[at : at + size] for at in range(0, len(small), size)]

    unpack(LayerTree(members_of(small)), pieces, os.fsencode(target))

    assert (target / "a").read_bytes() == b"x" * 1000
    assert (target / "b").read_bytes() == b"y" * 700


def test_an_archive_that_ends_early_is_refused(tree: LayerTree, target: Path) -> None:
    with pytest.raises(UnfitLayer, match="ends before"):
        unpack(tree, SPANS[:2], os.fsencode(target))


def test_another_archive_is_refused_at_its_end(tree: LayerTree, target: Path) -> None:
    changed = [*SPANS[:-1], bytes(len(SPANS[-1]))]

    with pytest.raises(UnfitLayer, match="its bytes are not sha256:"):
        unpack(tree, checked(changed, digest_of(ARCHIVE)), os.fsencode(target))
    assert list(checked(SPANS, digest_of(ARCHIVE))) == SPANS


TWO = [
    archive(directory("etc", 0o711), file("etc/low", b"low")),
    archive(file("etc/high", b"high")),
]
"""One that says what `etc` is, and one above it that does not."""


class Layers:
    """Of a host, all of them whole."""

    def __init__(self, root: Path, archives: Sequence[bytes] = TWO) -> None:
        self.root = root
        (root / "layers").mkdir()
        (root / MIRROR_NAME).write_text("http://127.0.0.1:1\n")
        blobs = [gzipped(plain) for plain in archives]
        self.image = layered_image(
            ImageName("docker.io", "library/app"),
            [(digest_of(blob), len(blob)) for blob in blobs],
            [digest_of(plain) for plain in archives],
        )
        for number, blob in enumerate(blobs, 1):
            index, whole = root / f"{number}.index", root / f"{number}.blob"
            index.write_bytes(encode_index(index_of(blob)))
            whole.write_bytes(blob)
            layer = self.image.layers[number - 1]
            size = len(archives[number - 1])
            opened = OpenedLayer(self.image.name, layer, index, whole, size)
            write_layer(root / "layers", number, opened, list(range(1, number)))

    def files(self, number: int) -> Path:
        return self.root / "layers" / str(number) / FILES


@pytest.fixture
def layers(tmp_path: Path) -> Layers:
    return Layers(tmp_path)


def test_a_layer_of_this_host_becomes_files(layers: Layers) -> None:
    (layers.root / "layers" / "2" / f"{FILES}.new" / "of a crash").mkdir(parents=True)

    unpack_layer(layers.root, 2)

    assert (layers.files(2) / "etc" / "high").read_bytes() == b"high"
    assert stat.S_IMODE((layers.files(2) / "etc").stat().st_mode) == 0o711, (
        "as the layer below says"
    )
    assert sorted(os.listdir(layers.files(2).parent)) == ["blob", FILES, "index", "layer.json"]


def test_a_disk_without_room_is_left_alone(layers: Layers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_worker, "FREE_RATIO_MIN", 1.0)

    assert unpack_worker.outcome(layers.root, 1) == unpack_worker.NOT_NOW
    assert not layers.files(1).exists()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Room for what an archive of small files has in bytes, and not for its files."""
    disk = tmp_path / "disk"
    disk.mkdir()
    run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)])
    try:
        yield disk
    finally:
        run(["umount", str(disk)])


@pytest.mark.faults
def test_row_99_a_disk_that_fills_up_keeps_nothing_of_a_layer(tiny_disk: Path) -> None:
    plain = archive(*(file(f"{number:04}", b"x") for number in range(1500)))
    layers = Layers(tiny_disk, [plain])
    with recorded(99, "the disk is full while a layer becomes plain files") as record:
        assert unpack_worker.outcome(tiny_disk, 1) == unpack_worker.NOT_NOW
        assert sorted(os.listdir(layers.files(1).parent)) == ["blob", "index", "layer.json"]
        shown = GrowingLayers(tiny_disk / "layers", "http://127.0.0.1:1", starts=False).find(1)
        assert shown is not None
        assert b"".join(shown[1].all()) == plain, "containers go on reading it where it is shown"
        record.outcome = "given up, nothing left of it; the layer is shown as before"


def test_of_a_layer_that_is_another_one_nothing_stays(
    layers: Layers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(plain: object, diff_id: Digest) -> Iterator[bytes]:
        raise UnfitLayer("not this one")

    monkeypatch.setattr(unpack_worker, "checked", wrong)

    assert unpack_worker.outcome(layers.root, 1) == unpack_worker.UNFIT
    assert sorted(os.listdir(layers.files(1).parent)) == ["blob", "index", "layer.json"]
