"""No name in a directory that a stranger filled leads out of it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import ConfigError
from p2pdist.process.tree import LINKS_MAX, Tree, write_named


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "victim").write_bytes(b"VICTIM")
    (place / "empty").mkdir()
    return place


@pytest.fixture
def top(tmp_path: Path, outside: Path) -> Path:
    top = tmp_path / "top"
    (top / "etc").mkdir(parents=True)
    return top


def look(path: Path) -> dict[str, bytes | str | None]:
    """All that is there, links as links."""
    return {
        str(p.relative_to(path)): os.readlink(p)
        if p.is_symlink()
        else p.read_bytes()
        if p.is_file()
        else None
        for p in path.rglob("*")
    }


WAYS_OUT: dict[str, Callable[[Path, Path], str]] = {
    "absolute": lambda top, outside: str(outside),
    "relative": lambda top, outside: os.path.relpath(outside, top / "etc"),
    "absolute to below the top": lambda top, outside: str(top / "srv"),
}
DEEDS: dict[str, Callable[[Tree, Path], object]] = {
    "read": lambda tree, path: tree.read(path / "victim"),
    "write": lambda tree, path: tree.write(path / "victim", b"evil"),
    "new": lambda tree, path: tree.write(path / "deep/new", b"evil"),
    "unlink": lambda tree, path: tree.unlink(path / "victim"),
    "rmdir": lambda tree, path: tree.rmdir(path / "empty"),
    "list": lambda tree, path: tree.listed(path),
    "status": lambda tree, path: tree.status(path / "victim"),
}


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_directory_that_leads_out_is_refused_by_name(
    top: Path, outside: Path, way: str, deed: str
) -> None:
    (top / "etc" / "link").symlink_to(WAYS_OUT[way](top, outside))
    before = look(outside)

    with pytest.raises(ConfigError, match=r"etc/link is a link to"):
        DEEDS[deed](Tree(top), top / "etc/link")

    assert look(outside) == before


@pytest.mark.parametrize("deed", ["read", "write"])
@pytest.mark.parametrize("way", WAYS_OUT)
def test_a_file_that_leads_out_is_refused_by_name(
    top: Path, outside: Path, way: str, deed: str
) -> None:
    (top / "etc" / "victim").symlink_to(Path(WAYS_OUT[way](top, outside)) / "victim")

    with pytest.raises(ConfigError, match=r"etc/victim is a link to"):
        DEEDS[deed](Tree(top), top / "etc")

    assert (outside / "victim").read_bytes() == b"VICTIM"


def test_a_link_that_stays_below_is_followed_and_stays_a_link(top: Path) -> None:
    (top / "srv" / "deep").mkdir(parents=True)
    (top / "etc" / "docker").symlink_to("../srv/deep")
    (top / "srv" / "deep" / "a").symlink_to("../b")
    tree = Tree(top)

    tree.write(top / "etc/docker/a", b"1")

    assert (top / "srv" / "b").read_bytes() == b"1"
    assert tree.read(top / "etc/docker/a") == b"1"
    assert (top / "srv" / "deep" / "a").is_symlink()
    tree.unlink(top / "etc/docker/a")
    assert not (top / "srv" / "b").exists()


def test_below_the_root_of_the_host_absolute_links_are_links_as_any(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    Tree(Path("/")).write(tmp_path / "link" / "a", b"1")

    assert (tmp_path / "real" / "a").read_bytes() == b"1"


@pytest.mark.parametrize("path", ["../outside/victim", "etc/../../outside/victim"])
def test_a_path_that_leads_out_is_refused(top: Path, path: str) -> None:
    with pytest.raises(ConfigError, match="leads out"):
        Tree(top).read(top / path)
    with pytest.raises(ConfigError, match="does not lie below"):
        Tree(top).read(top.parent / "outside" / "victim")


def test_links_that_lead_to_each_other_end(top: Path) -> None:
    (top / "a").symlink_to("b")
    (top / "b").symlink_to("a")
    for number in range(LINKS_MAX + 1):
        (top / f"long{number}").symlink_to(f"long{number + 1}")

    for name in ("a", "long0"):
        with pytest.raises(ConfigError, match="one of very many"):
            Tree(top).read(top / name)


def test_what_is_no_plain_file_is_neither_waited_for_nor_replaced(top: Path) -> None:
    os.mkfifo(top / "pipe")

    with pytest.raises(ConfigError, match="no plain file"):
        Tree(top).read(top / "pipe")
    with pytest.raises(ConfigError, match="no plain file"):
        Tree(top).write(top / "etc", b"1")


def test_a_file_that_is_too_large_is_refused(top: Path) -> None:
    (top / "file").write_bytes(b"12345")

    assert Tree(top).read(top / "file", size_max=5) == b"12345"
    with pytest.raises(ConfigError, match="larger than 4"):
        Tree(top).read(top / "file", size_max=4)


def test_a_write_keeps_mode_and_leaves_nothing_beside(top: Path) -> None:
    (top / "file").write_bytes(b"old")
    (top / "file").chmod(0o640)
    tree = Tree(top)

    tree.write(top / "file", b"new")
    tree.write(top / "deep" / "secret", b"new", 0o600)

    assert (top / "file").stat().st_mode & 0o7777 == 0o640
    assert (top / "deep" / "secret").stat().st_mode & 0o7777 == 0o600
    assert set(look(top)) == {"etc", "file", "deep", "deep/secret"}


def test_a_file_that_fails_leaves_the_old_one_and_nothing_beside(top: Path) -> None:
    (top / "file").write_bytes(b"old")

    def fail() -> None:
        with Tree(top).replacing(top / "file") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()

    assert look(top) == {"etc": None, "file": b"old"}


def test_a_temporary_name_that_somebody_guessed_is_not_used(
    top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "guess")
    (top / ".file.guess").write_bytes(b"waits")

    with pytest.raises(FileExistsError):
        Tree(top).write(top / "file", b"new")

    assert look(top) == {"etc": None, ".file.guess": b"waits"}


def test_a_link_in_the_place_of_a_new_file_is_replaced(top: Path, outside: Path) -> None:
    (top / "index.json").symlink_to(outside / "victim")
    (top / "blob").symlink_to(outside / "victim")
    (top / "source").write_bytes(b"blob")

    with Tree(top).replacing(top / "index.json") as file:
        file.write(b"new")
    Tree(top).adopt(top / "source", top / "blob")

    assert look(top) == {"etc": None, "index.json": b"new", "blob": b"blob"}
    assert (outside / "victim").read_bytes() == b"VICTIM"


PARTS = st.lists(st.sampled_from(["..", ".", "a", "b", "link", "", "etc"]), min_size=1, max_size=8)


@given(targets=st.lists(PARTS.map("/".join).filter(bool), min_size=1, max_size=4), path=PARTS)
def test_whatever_the_links_say_nothing_outside_changes(
    tmp_path_factory: pytest.TempPathFactory, targets: list[str], path: list[str]
) -> None:
    base = tmp_path_factory.mktemp("walk")
    top = base / "x" / "top"
    (top / "a" / "b").mkdir(parents=True)
    for name, target in zip(["link", "a/link", "a/b/link", "etc"], targets, strict=False):
        (top / name).symlink_to(target)

    with contextlib.suppress(ConfigError, OSError):
        Tree(top).write(top.joinpath(*(part for part in path if part)), b"evil")

    assert [p.name for p in base.iterdir()] == ["x"]
    assert [p.name for p in (base / "x").iterdir()] == ["top"]


# --- files that the caller names ------------------------------------------------------------------


def test_a_named_file_goes_through_the_callers_own_link(top: Path, outside: Path) -> None:
    (top / "report").symlink_to(outside / "victim")

    write_named(top / "report", b"new")
    write_named(top / "deep" / "report", b"new")

    assert (outside / "victim").read_bytes() == b"new"
    assert (top / "report").is_symlink()
    assert (top / "deep" / "report").read_bytes() == b"new"


def test_a_named_file_goes_through_no_link_of_others(
    top: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = top / "report"
    link.symlink_to(outside / "victim")
    if os.geteuid() == 0:
        os.chown(link, 65534, -1, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(ConfigError, match="link of another user"):
        write_named(link, b"new")

    assert (outside / "victim").read_bytes() == b"VICTIM"


def test_a_device_is_written_and_not_replaced(top: Path) -> None:
    os.mkfifo(top / "pipe")
    reader = os.open(top / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_named(top / "pipe", b"new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)


def test_an_error_names_the_whole_path(tmp_path: Path) -> None:
    """Not the last name of it, nor the one of chance that a new file has for a moment."""
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "directory").mkdir()
    tree = Tree(tmp_path)

    with pytest.raises(NotADirectoryError) as below_a_file:
        tree.write(tmp_path / "file" / "x.json", b"")
    with (
        pytest.raises(IsADirectoryError) as over_a_directory,
        tree.replacing(tmp_path / "directory") as file,
    ):
        file.write(b"x")

    assert below_a_file.value.filename == str(tmp_path / "file" / "x.json")
    assert over_a_directory.value.filename == str(tmp_path / "directory")
