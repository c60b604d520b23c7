"""Trees of files, mounted in a directory of the test and gone with it, whatever happens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.fuse.mounting import FuseMount, MountOptions, mount
from tests.e2e.streaming.trees import worker

MountTree = Callable[..., FuseMount]


@pytest.fixture
def mount_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MountTree]:
    """Mounts the tree of that name (`trees.TREES`), by default in a new directory."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))
    with ExitStack() as stack:

        def start(name: str, path: Path | None = None, **options: bool | int) -> FuseMount:
            path = path or tmp_path / name
            path.mkdir(exist_ok=True)
            stack.callback(syscalls.unmount, str(path))
            mounted = mount(worker(name), path, MountOptions(**options))  # type: ignore[arg-type]  # fields of MountOptions
            stack.callback(mounted.stop)
            return mounted

        yield start
