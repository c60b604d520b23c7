"""Snapshots and their directories, over restarts and faults of the disk."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError, StoreError
from p2pdist.model.ids import digest_of
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.snapshotter.core.filters import BadFilter
from p2pdist.streaming.snapshotter.core.mounts import OVERLAY_OPTIONS, Mount
from p2pdist.streaming.snapshotter.core.snapshots import Kind, NoSuchSnapshot, SnapshotInUse
from p2pdist.streaming.snapshotter.layer_files import FILES, read_plan
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.snapshot_store import FILE_NAME, SnapshotStore
from tests.streaming.archives import archive, file, gzipped, index_of

ARCHIVES = [archive(file("low")), archive(file("high"))]
LAYERS = [gzipped(plain) for plain in ARCHIVES]
IMAGE = layered_image(
    ImageName("docker.io", "library/app"),
    [(digest_of(layer), len(layer)) for layer in LAYERS],
    [digest_of(plain) for plain in ARCHIVES],
)
CHAINS = [layer.chain_id for layer in IMAGE.layers]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "snapshotter"


def opened_store(root: Path) -> SnapshotStore:
    return SnapshotStore(root, count(1).__next__)


@pytest.fixture
def store(root: Path) -> Iterator[SnapshotStore]:
    made = opened_store(root)
    yield made
    made.close()


@pytest.fixture
def opened(tmp_path: Path) -> list[OpenedLayer]:
    found = []
    for number, layer in enumerate(IMAGE.layers):
        index, blob = tmp_path / f"{number}.index", tmp_path / f"{number}.blob"
        index.write_bytes(encode_index(index_of(LAYERS[number])))
        blob.write_bytes(LAYERS[number])
        whole = blob if number else None
        found.append(OpenedLayer(IMAGE.name, layer, index, whole, len(ARCHIVES[number])))
    return found


def shown(store: SnapshotStore, opened: list[OpenedLayer]) -> str:
    """Show both layers; return the name of the upper one."""
    store.show("k8s.io/1/low", "", {"a": "1"}, opened[0])
    store.show("k8s.io/2/high", "k8s.io/1/low", {}, opened[1])
    return "k8s.io/2/high"


def test_the_first_layer_that_is_unpacked_is_a_directory(store: SnapshotStore, root: Path) -> None:
    store.add("key", "", Kind.ACTIVE, {})

    fs = root / "snapshots" / "1" / "fs"
    assert store.mounts("key") == [Mount("bind", str(fs), ("rw", "rbind"))]
    assert fs.is_dir()


def test_a_container_writes_above_all_layers(store: SnapshotStore, root: Path) -> None:
    for number, name in enumerate(("low", "middle")):
        store.add(f"{name}-key", "low" if number else "", Kind.ACTIVE, {})
        store.commit(name, f"{name}-key", {})
    store.add("container", "middle", Kind.ACTIVE, {})

    (mount,) = store.mounts("container")
    at = root / "snapshots"
    assert (mount.kind, mount.source) == ("overlay", "overlay")
    assert mount.options == (
        *OVERLAY_OPTIONS,
        f"workdir={at}/3/work",
        f"upperdir={at}/3/fs",
        f"lowerdir={at}/2/fs:{at}/1/fs",
    )
    assert (at / "3" / "work").is_dir()


def test_a_view_cannot_be_written_to(store: SnapshotStore, root: Path) -> None:
    for number, name in enumerate(("low", "high")):
        store.add(f"{name}-key", "low" if number else "", Kind.ACTIVE, {})
        store.commit(name, f"{name}-key", {})
    for name, parent in (("of none", ""), ("of one", "low"), ("of both", "high")):
        store.add(name, parent, Kind.VIEW, {})

    at = root / "snapshots"
    assert store.mounts("of none") == [Mount("bind", f"{at}/3/fs", ("ro", "rbind"))]
    assert store.mounts("of one") == [Mount("bind", f"{at}/1/fs", ("ro", "rbind"))]
    assert store.mounts("of both") == [
        Mount("overlay", "overlay", (*OVERLAY_OPTIONS, f"lowerdir={at}/2/fs:{at}/1/fs"))
    ]


def test_a_layer_that_is_shown_is_mounted_from_where_it_is_shown(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    store.add("container", shown(store, opened), Kind.ACTIVE, {})

    (mount,) = store.mounts("container")
    assert mount.options[-1] == f"lowerdir={root}/mnt/2:{root}/mnt/1"
    assert store.shows_any("container")
    low, high = (read_plan(root / "layers" / name) for name in ("1", "2"))
    assert (low.name, low.blob, low.below, low.whole) == (
        IMAGE.name,
        IMAGE.layers[0].digest,
        [],
        False,
    )
    assert (high.below, high.whole) == ([1], True)
    assert (root / "layers" / "1" / "index").read_bytes() == opened[0].index.read_bytes()
    assert (root / "layers" / "2" / "blob").read_bytes() == LAYERS[1]


def test_plain_files_of_a_layer_are_used_from_when_they_are_there(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    store.add("container", shown(store, opened), Kind.ACTIVE, {})
    assert [plan.blob for plan in store.lacking_bytes()] == [IMAGE.layers[0].digest]
    for number in (1, 2):
        (root / "layers" / str(number) / FILES).mkdir()

    (mount,) = store.mounts("container")

    assert mount.options[-1] == f"lowerdir={root}/layers/2/fs:{root}/layers/1/fs"
    assert not store.shows_any("container")
    assert store.lacking_bytes() == []
    assert [number for number, _ in store.plans()] == [1, 2]


def test_a_layer_above_one_that_is_unpacked_knows_no_layer_below(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    store.add("low-key", "", Kind.ACTIVE, {})
    store.commit("low", "low-key", {})
    store.show("high", "low", {}, opened[1])

    assert read_plan(root / "layers" / "2").below == []
    assert store.unpacked_below("high")
    assert store.shows(CHAINS[1], "low")
    assert not store.shows(CHAINS[1], "")


def test_everything_is_there_after_a_restart(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    top = shown(store, opened)
    store.add("container", top, Kind.ACTIVE, {"b": "2"})
    before, mounts = store.find([]), store.mounts("container")
    store.close()

    again = opened_store(root)
    again.adopt()

    assert again.find([]) == before
    assert again.mounts("container") == mounts
    assert again.shows(CHAINS[0], "")
    assert again.lacking() == []
    again.close()


def test_a_number_is_never_given_away_twice(store: SnapshotStore, root: Path) -> None:
    """The kernel may still know files by it."""
    assert store.add("a", "", Kind.ACTIVE, {}).number == 1
    store.remove("a")
    store.close()

    again = opened_store(root)
    assert again.add("b", "", Kind.ACTIVE, {}).number == 2
    again.close()


def test_what_a_crash_left_is_taken_away(store: SnapshotStore, root: Path) -> None:
    store.add("key", "", Kind.ACTIVE, {})
    for path in ("snapshots/7/fs", "layers/8", "layers/9.new", "snapshots/no-number"):
        (root / path).mkdir(parents=True)

    store.adopt()
    store.clean()

    assert os.listdir(root / "snapshots") == ["1"]
    assert os.listdir(root / "layers") == []
    assert os.listdir(root / "removed") == []


def test_a_directory_that_is_gone_is_told_of(store: SnapshotStore, root: Path) -> None:
    store.add("gone", "", Kind.ACTIVE, {})
    store.add("there", "", Kind.ACTIVE, {})
    (root / "snapshots" / "1").rename(root / "elsewhere")

    assert [snapshot.name for snapshot in store.lacking()] == ["gone"]


def test_files_of_a_removed_snapshot_go(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    top = shown(store, opened)
    store.add("container", top, Kind.ACTIVE, {})
    with pytest.raises(SnapshotInUse):
        store.remove(top)

    for name in ("container", top, "k8s.io/1/low"):
        store.remove(name)

    assert [os.listdir(root / place) for place in ("snapshots", "layers")] == [[], []]
    assert len(os.listdir(root / "removed")) == 3
    store.clean()
    assert os.listdir(root / "removed") == []
    assert not store.shows(CHAINS[0], "")


def test_usage_is_what_the_disk_has(
    store: SnapshotStore, root: Path, opened: list[OpenedLayer]
) -> None:
    store.add("key", "", Kind.ACTIVE, {})
    fs = root / "snapshots" / "1" / "fs"
    (fs / "d").mkdir()
    (fs / "d" / "file").write_bytes(b"x" * 10_000)
    os.link(fs / "d" / "file", fs / "again")

    usage = store.usage(store.get("key"))

    assert usage.inodes == 2
    assert 10_000 <= usage.size_bytes <= 40_000
    store.show("low", "", {}, opened[1])
    assert store.usage(store.get("low")).size_bytes > 0


def test_snapshots_are_found_as_an_engine_looks_for_them(
    store: SnapshotStore, opened: list[OpenedLayer]
) -> None:
    shown(store, opened)
    store.add("container", "k8s.io/2/high", Kind.ACTIVE, {})

    def names(*filters: str) -> list[str]:
        return [snapshot.name for snapshot in store.find(filters)]

    assert names('parent=="k8s.io/1/low"') == ["k8s.io/2/high"]
    assert names("kind==active") == ["container"]
    assert names("name==container", 'labels."a"==1') == ["k8s.io/1/low", "container"]
    with pytest.raises(BadFilter):
        names("==")


def test_the_root_of_a_container_belongs_to_whom_its_image_says(
    store: SnapshotStore, root: Path
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root gives files away")
    store.add("low-key", "", Kind.ACTIVE, {})
    os.chown(root / "snapshots" / "1" / "fs", 1000, 1001)
    store.commit("low", "low-key", {})

    store.add("container", "low", Kind.ACTIVE, {})

    status = os.stat(root / "snapshots" / "2" / "fs")
    assert (status.st_uid, status.st_gid) == (1000, 1001)


def test_a_container_can_be_walked_whatever_the_umask_is(store: SnapshotStore, root: Path) -> None:
    before = os.umask(0o077)
    try:
        store.add("key", "", Kind.ACTIVE, {})
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(root / "snapshots" / "1" / "fs").st_mode) == 0o755


def test_a_disk_that_refuses_leaves_table_and_disk_alike(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add("key", "", Kind.ACTIVE, {})

    def full(*_: object) -> None:
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(store._records, "put", full)
        for change in (
            lambda: store.add("other", "", Kind.ACTIVE, {}),
            lambda: store.commit("layer", "key", {}),
            lambda: store.relabel("key", {"a": "b"}, []),
        ):
            with pytest.raises(StoreError) as told:
                change()
            assert told.value.full

    assert [(s.name, s.kind, dict(s.labels)) for s in store.find([])] == [("key", Kind.ACTIVE, {})]
    with pytest.raises(NoSuchSnapshot):
        store.get("other")
    store.add("other", "", Kind.ACTIVE, {})


def test_a_record_that_cannot_be_read_keeps_no_other_from_starting(
    store: SnapshotStore, root: Path
) -> None:
    store.add("broken", "", Kind.ACTIVE, {})
    store.add("whole", "", Kind.ACTIVE, {})
    store.close()
    with sqlite3.connect(root / FILE_NAME) as database:
        database.execute("UPDATE snapshots SET record = x'ff' WHERE number = 1")
    database.close()

    again = opened_store(root)
    assert [snapshot.name for snapshot in again.find([])] == ["whole"]
    again.close()


def test_a_database_of_another_version_is_refused(store: SnapshotStore, root: Path) -> None:
    store.close()
    with sqlite3.connect(root / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 9")
    database.close()

    with pytest.raises(ConfigError, match="version 9"):
        opened_store(root)


def test_what_is_no_database_is_refused(root: Path) -> None:
    root.mkdir(mode=0o700)
    (root / FILE_NAME).write_bytes(b"something else" * 100)

    with pytest.raises(ConfigError):
        opened_store(root)
