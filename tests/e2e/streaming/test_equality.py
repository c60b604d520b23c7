"""An image that hostile hands made is the same files, whoever lays it out.

Real images, which take minutes to make, are in `tests/equality`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.streaming import hostile_image
from tests.e2e.streaming.listing import Excuse, differences, listing
from tests.e2e.streaming.unpackers import unpackers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-eq-") as path:
        yield Path(path)


async def test_a_hostile_image_is_the_same_files_for_all(work: Path) -> None:
    async with unpackers(work, hostile_image.LAYERS) as every:
        shown = await every.shown()
        assert b"/x/unknown" in shown
        assert differences(await every.mounted(), shown) == []
        assert differences(await every.unpacked(), shown) == []
        assert differences(shown, await every.by_containerd(), hostile_image.CONTAINERD) == []
        assert differences(shown, await every.by_umoci(), hostile_image.UMOCI) == []


# --- the comparison itself ------------------------------------------------------------------------


@pytest.fixture
def trees(tmp_path: Path) -> tuple[Path, Path]:
    """Two that are the same."""
    for name in ("one", "two"):
        place = tmp_path / name
        (place / "d").mkdir(parents=True)
        (place / "f").write_bytes(b"x")
        os.link(place / "f", place / "d" / "again")
        (place / "s").symlink_to("f")
        os.mkfifo(place / "p")
        for below in ("d", "f", "s", "p", "."):
            os.utime(place / below, ns=(0, 5), follow_symlinks=False)
    return tmp_path / "one", tmp_path / "two"


def test_trees_that_are_the_same_differ_in_nothing(trees: tuple[Path, Path]) -> None:
    assert differences(listing(trees[0]), listing(trees[1])) == []


@pytest.mark.parametrize(
    ("path", "field", "change"),
    [
        (b"/f", "content", lambda path: path.write_bytes(b"y")),
        (b"/f", "size_bytes", lambda path: path.write_bytes(b"longer")),
        (b"/d", "mode", lambda path: path.chmod(0o700)),
        (b"/f", "uid", lambda path: os.chown(path, 1, -1)),
        (b"/s", "gid", lambda path: os.lchown(path, -1, 1)),
        (b"/f", "mtime_ns", lambda path: os.utime(path, ns=(0, 6))),
        (b"/p", "xattrs", lambda path: os.setxattr(path, "trusted.a", b"")),
        (b"/f", "xattrs", lambda path: os.setxattr(path, "user.a", b"b")),
        (b"/f", "names", lambda path: path.rename(path.with_name("g"))),
    ],
)
def test_a_difference_is_found(
    trees: tuple[Path, Path], path: bytes, field: str, change: object
) -> None:
    expected = listing(trees[0])
    assert callable(change)
    change(trees[1] / os.fsdecode(path[1:]))

    found = differences(listing(trees[1]), expected)

    assert any(field in line for line in found) or any("only" in line for line in found)


def test_an_excuse_counts_for_what_it_names_and_has_to_be_needed(trees: tuple[Path, Path]) -> None:
    one = listing(trees[0])
    (trees[1] / "p").chmod(0o777)
    os.utime(trees[1] / "p", ns=(0, 7))
    mode = Excuse("modes differ", frozenset({"mode"}), frozenset({b"/p"}))
    idle = Excuse("never seen", frozenset({"there"}), frozenset({b"/p"}))

    found = differences(listing(trees[1]), one, [mode, idle])

    assert found == ["b'/p' mtime_ns: 7, expected 5", "nothing to excuse: never seen"]
