"""`p2pdist run`: containers of images that are not here, with a real runc."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.peer.daemon import RunningPeer
from tests.e2e.harness.image import exiting_program, greeting_program, pausing_program
from tests.e2e.harness.processes import pids_with, wait_until
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import archive, directory, file, gzipped, symlink

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

GREETING = "hello from nowhere near"
PASSWD = b"root:x:0:0::/root:/bin/sh\napp:x:1234:77::/srv:/bin/sh\n"
BASE = archive(
    directory("etc"),
    file("etc/passwd", PASSWD),
    symlink("etc/group", "../../../../../srv/groups"),
    file("srv/groups", b"app:x:77:\nvideo:x:44:app\n"),
    file("old"),
)
TOP = archive(
    file("hello", greeting_program(GREETING), mode=0o755),
    file("seven", exiting_program(7), mode=0o755),
    file("pause", pausing_program(), mode=0o755),
    file(".wh.old"),
)
SETTINGS: dict[str, Any] = {
    "Entrypoint": ["/hello"],
    "Env": ["A=image", "B=image"],
    "WorkingDir": "/srv",
    "User": "app",
}


class Place:
    def __init__(self, peer: RunningPeer, directory: Path) -> None:
        self.state = directory / "mounts"
        self._words = [sys.executable, "-m", "p2pdist.cli.main", "run"]
        self._words += ["--endpoint", url_of(peer.mirror), "--state-dir", str(self.state)]

    def start(self, *words: str) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen([*self._words, *words], stdout=pipe, stderr=pipe, text=True)

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit status, output, complaints; nothing is left of it."""
        running = self.start(*words)
        out, err = await asyncio.to_thread(running.communicate, timeout=100)
        assert not self.state.exists() or os.listdir(self.state) == []
        return running.returncode, out, err

    async def paused(self, *words: str) -> tuple[subprocess.Popen[str], Path]:
        """A container that goes on, and its first process."""
        running = self.start(*words, "/pause")
        found: list[int] = []

        def begun() -> bool:
            inside = [pid for pid in pids_with("/pause") if Path(f"/proc/{pid}/comm").exists()]
            found[:] = [p for p in inside if Path(f"/proc/{p}/comm").read_text() == "pause\n"]
            assert running.poll() is None, running.communicate()
            return bool(found)

        await asyncio.to_thread(wait_until, begun, "container", timeout_s=60)
        return running, Path(f"/proc/{found[0]}")


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    with tempfile.TemporaryDirectory(prefix="p2pe-run-") as name:
        work = Path(name)
        async with (
            FakeRegistry() as registry,
            open_lab(work / "lab", {"docker.io": registry.url}) as lab,
        ):
            archives = [BASE, TOP]
            layers = [gzipped(plain) for plain in archives]
            registry.add_image("library/app", "1", layers, archives=archives, settings=SETTINGS)
            registry.add_image("library/app", "bare", layers, archives=archives)
            await lab.proxy()
            yield Place(await lab.peer("peer"), work)


def ended(running: subprocess.Popen[str], process: Path) -> int:
    os.kill(int(process.name), signal.SIGKILL)
    running.communicate(timeout=60)
    return running.returncode


def assert_same_file(one: Path, other: Path) -> None:
    assert one.samefile(other)


async def test_an_image_runs_what_it_names(place: Place) -> None:
    assert await place.run("app:1") == (0, f"{GREETING}\n", "")


async def test_a_command_ends_as_it_ends(place: Place) -> None:
    code, out, err = await place.run("app:bare", "/seven")

    assert (code, out, err) == (7, "", "")


async def test_a_container_is_as_its_image_says(place: Place) -> None:
    running, process = await place.paused("-e", "B=mine", "app:bare")
    status = (process / "status").read_text()
    assert "Uid:\t0\t0\t0\t0" in status
    root = process / "root"
    assert sorted(os.listdir(root)) == [
        "dev", "etc", "hello", "pause", "proc", "seven", "srv", "sys",
    ]  # fmt: skip
    assert_same_file(root / "etc/resolv.conf", Path("/etc/resolv.conf"))
    assert b"B=mine" in (process / "environ").read_bytes().split(b"\0")
    assert os.readlink(process / "ns/net") == os.readlink("/proc/self/ns/net")
    for own in ("mnt", "pid", "uts", "ipc"):
        assert os.readlink(process / "ns" / own) != os.readlink(f"/proc/self/ns/{own}")
    assert (await asyncio.to_thread(ended, running, process)) == 128 + signal.SIGKILL
    assert os.listdir(place.state) == []


async def test_its_user_is_one_of_the_image(place: Place, tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    words = ["-v", f"{tmp_path}/shared:/data:ro", "--read-only", "-w", "/data", "-u", "app"]
    running, process = await place.paused(*words, "app:bare")

    status = (process / "status").read_text()
    assert "Uid:\t1234\t1234\t1234\t1234" in status
    assert "Gid:\t77\t77\t77\t77" in status
    assert "Groups:\t44 77" in status or "Groups:\t44" in status
    assert "CapEff:\t0000000000000000" in status
    assert os.readlink(process / "cwd") == "/data"
    assert b"HOME=/srv" in (process / "environ").read_bytes().split(b"\0")
    mounts = (process / "mountinfo").read_text().splitlines()
    options = {row.split()[4]: row.split()[5].split(",") for row in mounts}
    assert "ro" in options["/"]
    assert "ro" in options["/data"]
    await asyncio.to_thread(ended, running, process)


async def test_a_container_that_is_told_to_end_leaves_nothing(place: Place) -> None:
    """The first process of a container heeds no signal that it has no handler for: runc is told."""
    running, process = await place.paused("app:bare")

    running.send_signal(signal.SIGTERM)
    await asyncio.to_thread(ended, running, process)

    assert os.listdir(place.state) == []
    assert pids_with(str(place.state)) == []


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["app:bare"], 2, "names no command"),
        (["-u", "nobody", "app:1"], 2, "the image has no user 'nobody'"),
        (["-e", "A", "app:1"], 2, "not NAME=VALUE"),
        (["-v", "/nowhere/at/all:/x", "app:1"], 2, "is not there to be a volume"),
        (["-v", "/tmp", "app:1"], 2, "not HOST:PATH"),
        (["-w", "srv", "app:1"], 2, "a path from the root"),
        (["nothing:1"], 3, "knows no such"),
    ],
)
async def test_what_is_wrong_is_said(
    place: Place, words: list[str], status: int, said: str
) -> None:
    code, _, err = await place.run(*words)

    assert code == status, err
    assert said in err
    assert "Traceback" not in err


async def test_a_command_that_is_not_there(place: Place) -> None:
    code, _, err = await place.run("app:bare", "/nothing")

    assert code == 1
    assert "/nothing" in err
