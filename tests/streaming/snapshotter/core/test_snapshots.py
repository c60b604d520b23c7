"""Names, parents and labels as containerd's own snapshotters keep them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pdist.errors import P2pdistError
from p2pdist.streaming.snapshotter.core.snapshots import (
    Kind,
    NoSuchSnapshot,
    NotPossible,
    SnapshotExists,
    SnapshotInUse,
    Snapshots,
)

LABELS = {"containerd.io/snapshot.ref": "sha256:abc", "a": "b"}


def committed(table: Snapshots, name: str, parent: str = "") -> None:
    table.add(f"{name}-key", parent, Kind.ACTIVE, {}, 1)
    table.commit(name, f"{name}-key", {}, 2)


def test_an_active_snapshot_is_committed_under_a_name_of_its_own() -> None:
    table = Snapshots()
    active = table.add("key", "", Kind.ACTIVE, LABELS, 1)
    done = table.commit("layer", "key", {"c": "d"}, 2)

    assert (done.kind, done.number, done.labels) == (Kind.COMMITTED, active.number, {"c": "d"})
    assert (done.created_ns, done.updated_ns) == (2, 2)
    with pytest.raises(NoSuchSnapshot):
        table.get("key")


def test_numbers_are_never_used_again() -> None:
    table = Snapshots()
    first = table.add("a", "", Kind.ACTIVE, {}, 1)
    table.remove("a")
    assert table.add("b", "", Kind.ACTIVE, {}, 1).number > first.number
    last = table.add("c", "", Kind.ACTIVE, {}, 1)
    assert Snapshots(list(table)).add("d", "", Kind.ACTIVE, {}, 1).number > last.number


def test_what_has_others_above_it_stays() -> None:
    table = Snapshots()
    committed(table, "low")
    committed(table, "high", "low")
    table.add("container", "high", Kind.ACTIVE, {}, 3)

    for again in (table, Snapshots(list(table))):
        assert [s.name for s in again.down_from("container")] == ["container", "high", "low"]
        for name in ("low", "high"):
            with pytest.raises(SnapshotInUse):
                again.remove(name)
        for name in ("container", "high", "low"):
            again.remove(name)
        assert len(again) == 0


@pytest.mark.parametrize(
    ("work", "error"),
    [
        (lambda t: t.add("low", "", Kind.ACTIVE, {}, 1), SnapshotExists),
        (lambda t: t.add("x", "none", Kind.ACTIVE, {}, 1), NoSuchSnapshot),
        (lambda t: t.add("x", "active", Kind.VIEW, {}, 1), NotPossible),
        (lambda t: t.add("", "", Kind.ACTIVE, {}, 1), NotPossible),
        (lambda t: t.add("x", "", Kind.ACTIVE, {"k": "v" * 5000}, 1), NotPossible),
        (lambda t: t.commit("low", "active", {}, 1), SnapshotExists),
        (lambda t: t.commit("x", "none", {}, 1), NoSuchSnapshot),
        (lambda t: t.commit("x", "low", {}, 1), NotPossible),
        (lambda t: t.remove("none"), NoSuchSnapshot),
        (lambda t: t.relabel("none", {}, (), 1), NoSuchSnapshot),
        (lambda t: t.relabel("low", {}, ("parent",), 1), NotPossible),
    ],
)
def test_what_cannot_be_changes_nothing(
    work: Callable[[Snapshots], object], error: type[P2pdistError]
) -> None:
    table = Snapshots()
    committed(table, "low")
    table.add("active", "low", Kind.ACTIVE, {}, 1)
    before = list(table)
    with pytest.raises(error):
        work(table)
    assert list(table) == before


def test_labels_are_set_one_by_one_or_all() -> None:
    table = Snapshots()
    table.add("a", "", Kind.ACTIVE, {"x": "1", "y": "2"}, 1)
    assert table.relabel("a", {"x": "3"}, ("labels.x", "labels.y"), 2).labels == {"x": "3"}
    assert table.relabel("a", {"z": "4"}, (), 3).labels == {"z": "4"}
    assert table.get("a").updated_ns == 3
