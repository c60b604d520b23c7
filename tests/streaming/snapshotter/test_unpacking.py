"""Which layers become plain files, and when: with a process that only says that it did."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pdist.model.ids import Digest, digest_of
from p2pdist.streaming.snapshotter import unpack_worker, unpacking
from p2pdist.streaming.snapshotter.layer_files import FILES, LayerPlan
from p2pdist.streaming.snapshotter.unpacking import Unpacking
from p2pdist.streaming.snapshotter.worker import MIRROR_NAME

SMALL, LARGE = digest_of(b"small"), digest_of(b"large")
# In the place of the worker: it is told ROOT and NUMBER as that is.
PROGRAM = """
import pathlib, sys
root, number = pathlib.Path(sys.argv[1]), sys.argv[2]
with (root / "asked").open("a") as asked:
    asked.write(number + "\\n")
reason = root / f"fails-{number}"
if reason.exists():
    sys.exit(reason.read_text())
(root / "layers" / number / "fs").mkdir()
"""


def test_the_worker_says_why(tmp_path: Path) -> None:
    """All of it, however fast it ends then."""
    (tmp_path / "layers").mkdir()
    (tmp_path / MIRROR_NAME).write_text("http://127.0.0.1:1\n")
    words = [sys.executable, "-P", "-m", unpacking.WORKER, str(tmp_path), "7"]

    done = subprocess.run(words, capture_output=True, check=False, timeout=60)

    assert done.returncode == unpack_worker.NOT_NOW
    assert done.stderr == f"{tmp_path}/layers/7\n".encode()


def plan(layer: Digest, *, whole: bool = False) -> LayerPlan:
    return LayerPlan("docker.io", "library/app", layer, [], whole=whole)


class Place:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.plans = {1: plan(SMALL, whole=True), 2: plan(LARGE), 3: plan(LARGE)}
        for number in (*self.plans, 4):
            (root / "layers" / str(number)).mkdir(parents=True)
        self.unpacking = Unpacking(root, lambda: list(self.plans.items()))
        self.running: asyncio.Task[None] | None = None

    def start(self) -> None:
        self.running = asyncio.get_running_loop().create_task(self.unpacking.run())

    def asked(self) -> list[int]:
        path = self.root / "asked"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    async def asked_for(self, *numbers: int) -> None:
        """Return when it was started for these, in this order."""
        async with asyncio.timeout(30):
            while True:
                if self.asked() == list(numbers):
                    return
                await asyncio.sleep(0.01)

    def unpacked(self, number: int) -> bool:
        return (self.root / "layers" / str(number) / FILES).is_dir()


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    (tmp_path / "fake_worker.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(unpacking, "WORKER", "fake_worker")
    made = Place(tmp_path)
    yield made
    if made.running is not None:
        made.running.cancel()
        await asyncio.gather(made.running, return_exceptions=True)


async def test_a_layer_is_unpacked_when_all_of_it_is_here(place: Place) -> None:
    place.start()
    await place.asked_for(1)

    place.unpacking.held(LARGE)

    await place.asked_for(1, 2, 3)


async def test_what_was_unpacked_by_an_earlier_run_is_left_alone(place: Place) -> None:
    (place.root / "layers" / "1" / FILES).mkdir()
    (place.root / "layers" / "2" / FILES).mkdir()
    place.unpacking.held(LARGE)

    place.start()

    await place.asked_for(3)


async def test_a_layer_that_cannot_be_unpacked_is_not_tried_again_and_again(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    (place.root / "fails-1").write_text("no room")
    place.start()
    await place.asked_for(1)
    place.unpacking.held(LARGE)

    await place.asked_for(1, 2, 3)

    (said,) = [r for r in caplog.records if r.message == "layer.not_unpacked"]
    assert said.fields["error"].strip() == "no room"  # type: ignore[attr-defined]  # of our own logs
    assert not place.unpacked(1)


async def test_a_new_layer_is_seen(place: Place) -> None:
    place.start()
    await place.asked_for(1)
    place.plans[4] = plan(digest_of(b"other"), whole=True)

    place.unpacking.more()

    await place.asked_for(1, 4)


async def test_a_layer_that_is_shown_no_more_is_not_unpacked(place: Place) -> None:
    place.start()
    await place.asked_for(1)
    del place.plans[2], place.plans[3]
    place.unpacking.held(LARGE)
    place.plans[4] = plan(digest_of(b"other"), whole=True)
    place.unpacking.more()

    await place.asked_for(1, 4)
