"""`p2pdist mount` of an image whose layers are at a registry: real daemons, real mounts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.cli.lazy_status import mounts_of_host
from p2pdist.peer.daemon import RunningPeer
from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.image_mount import mounts
from tests.cluster.test_layer_indexes import index_at
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import (
    archive,
    device,
    directory,
    file,
    gzipped,
    name_of,
    symlink,
    text,
    zstd_in_frames,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

NOISE = random_bytes(6 << 20, 9)
CAPABILITY = "\x01\x00\x00\x02\x00\x20" + "\x00" * 14
PING = file(
    "bin/ping", b"\x7fELF", mode=0o4755, pax={"SCHILY.xattr.security.capability": CAPABILITY}
)
BASE = archive(
    directory("etc", 0o751),
    file("etc/passwd", b"root\n", mode=0o640, pax={"mtime": "1700000000.123456789"}),
    file("etc/old", b"old"),
    *(file(f"words/{i:03}", text(40_000, i)) for i in range(60)),
    file("noise", NOISE),
    PING,
    name_of(PING, "bin/ping2"),
    symlink("lib", "usr/lib"),
    file("caf\udce9/\udcff", b"not utf-8", pax={}),
    device("dev/null", 1, 3),
    file("hidden/x", b"x"),
    file("both/low", b"low"),
)
TOP = archive(
    file("etc/.wh.old"),
    file("hidden/.wh..wh..opq"),
    file("hidden/y", b"y"),
    file("both/high", b"high"),
    file("empty"),
    file("usr/lib/x.so", text(3_000_000, 77)),
)
LAYERS = [gzipped(BASE), zstd_in_frames(TOP, 300_000)]


class Mounting:
    def __init__(self, lab: Lab, peer: RunningPeer, directory: Path) -> None:
        self.lab = lab
        self.peer = peer
        self.endpoint = url_of(peer.mirror)
        self.state = directory / "state"
        self.target = directory / "mnt"
        self.target.mkdir()

    async def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "p2pdist.cli.main", *arguments]
        words += ["--state-dir", str(self.state)]
        return await asyncio.to_thread(
            subprocess.run, words, capture_output=True, text=True, check=False, timeout=120
        )

    async def mount(self, image: str = "app:1") -> subprocess.CompletedProcess[str]:
        return await self.command("mount", image, str(self.target), "--endpoint", self.endpoint)

    async def unmount(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return await self.command("unmount", str(self.target), *flags)


@pytest.fixture
async def mounting(tmp_path: Path) -> AsyncIterator[Mounting]:
    async with (
        FakeRegistry() as registry,
        open_lab(tmp_path / "lab", {"docker.io": registry.url}) as lab,
    ):
        lab.layer_index = True
        registry.add_image("library/app", "1", LAYERS, archives=[BASE, TOP])
        await lab.proxy()
        peer = await lab.peer("peer")
        made = Mounting(lab, peer, tmp_path)
        yield made
        for place, plan in mounts(made.state):
            syscalls.unmount(plan.target)
            syscalls.unmount(str(place / "layers"))


async def indexed(mounting: Mounting) -> None:
    """The proxy has the layers and their indexes; the peer has none of them."""
    other = await mounting.lab.peer("other")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(other.mirror))
        for layer in LAYERS:
            digest = f"sha256:{hashlib.sha256(layer).hexdigest()}"
            await index_at(client, url_of(other.mirror), digest)


def worker_pids(state: Path) -> list[int]:
    """Not that of the holder, whose arguments are those of its worker, too."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                worker = b"p2pdist.streaming.mount_worker" in words[:5]
                if worker and any(word.startswith(os.fsencode(state)) for word in words):
                    found.append(int(entry.name))
    return found


def reference(directory: Path) -> Path:
    """The same layers unpacked over each other by GNU tar, whiteouts carried out by hand."""
    base = directory / "base"
    base.mkdir()
    for data in (BASE, TOP):
        words = ["tar", "-x", "-C", str(base), "--xattrs", "--xattrs-include=*", "-p", "-f", "-"]
        subprocess.run([*words, "--same-owner"], input=data, check=True, capture_output=True)
    for gone in ("etc/old", "hidden/x", "etc/.wh.old", "hidden/.wh..wh..opq"):
        (base / gone).unlink()
    os.utime(base / "etc", ns=(0, 0))  # as BASE says; the whiteouts changed it
    return base


def described(root: Path) -> dict[bytes, tuple[object, ...]]:
    """All that lstat(2), readlink(2), xattrs and content say, by path."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, int] = {}
    top = os.fsencode(root)
    for directory_name, directories, files in os.walk(top):
        directories.sort()
        for name in sorted(directories + files):
            path = os.path.join(directory_name, name)
            status = os.lstat(path)
            content: object = None
            if os.path.islink(path):
                content = os.readlink(path)
            elif os.path.isfile(path):
                with open(path, "rb") as opened:
                    content = hashlib.sha256(opened.read()).hexdigest()
            is_directory = os.path.isdir(path) and not os.path.islink(path)
            link = inodes.setdefault(status.st_ino, len(inodes))
            found[path[len(top) :]] = (
                oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev,
                None if is_directory else (status.st_size, status.st_nlink),
                link if status.st_nlink > 1 and not is_directory else None,
                status.st_mtime_ns,
                {a: os.getxattr(path, a, follow_symlinks=False)
                 for a in os.listxattr(path, follow_symlinks=False)},
                content,
            )  # fmt: skip
    return found


def test_the_description_sees_a_difference(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "f").write_bytes(b"x")
        os.utime(tmp_path / name / "f", ns=(0, 0))
    assert described(tmp_path / "one") == described(tmp_path / "two")
    os.utime(tmp_path / "two" / "f", ns=(0, 1))
    assert described(tmp_path / "one") != described(tmp_path / "two")


@pytest.mark.parametrize("with_index", [True, False])
async def test_a_mounted_image_is_what_its_layers_unpack_to(
    mounting: Mounting, tmp_path: Path, with_index: bool
) -> None:
    if with_index:
        await indexed(mounting)
    done = await mounting.mount()
    assert done.returncode == 0, done.stderr
    expected = await asyncio.to_thread(lambda: described(reference(tmp_path)))
    seen = await asyncio.to_thread(described, mounting.target)
    # Directories that no entry names have no time of their own.
    unnamed = {b"/words", b"/bin", b"/dev", b"/usr", b"/usr/lib", b"/both", b"/hidden"}
    unnamed |= {"/caf\udce9".encode("utf-8", "surrogateescape")}
    assert set(seen) == set(expected)
    for path, says in expected.items():
        if path not in unnamed:
            assert seen[path] == says, path
        else:
            assert seen[path][0] == says[0], path
    assert (await mounting.unmount()).returncode == 0
    assert list(mounting.target.iterdir()) == []
    assert list(mounting.state.iterdir()) == []


async def test_only_what_is_read_is_fetched(mounting: Mounting) -> None:
    await indexed(mounting)
    done = await mounting.mount()

    def read() -> bytes:
        return (mounting.target / "words/007").read_bytes()

    assert await asyncio.to_thread(read) == text(40_000, 7)
    assert "0 B of them fetched" in done.stderr
    received = mounting.peer.running.node.counters.received
    # Indexes, and the span or two that hold the file; not the noise beside it.
    assert 0 < sum(received.values()) < 2 * (1 << 20) < len(NOISE)
    (told,) = mounts_of_host(mounting.state)
    assert (told["directory"], told["mounted"]) == (str(mounting.target), True)
    assert told["bytes"] >= 40_000
    assert 0 < told["fetched_bytes"]["demand"] < sum(received.values())
    assert mounts_of_host(mounting.state / "nowhere") == []


async def test_reads_survive_their_worker(mounting: Mounting) -> None:
    await indexed(mounting)
    assert (await mounting.mount()).returncode == 0

    def read(first: int) -> list[bytes]:
        return [(mounting.target / f"words/{i:03}").read_bytes() for i in range(first, first + 20)]

    for first in (0, 20, 40):  # none of them was read before
        (pid,) = await asyncio.to_thread(worker_pids, mounting.state)
        os.kill(pid, signal.SIGKILL)
        got = await asyncio.to_thread(read, first)
        assert got == [text(40_000, i) for i in range(first, first + 20)]


def begun(mounting: Mounting, moment: str) -> bool:
    """Whether a mount has come as far as `moment`, or further."""
    for place in mounting.state.iterdir() if mounting.state.exists() else ():
        layers = place / "layers"
        return {
            "begun": True,
            "planned": (place / "plan.json").exists(),
            "layers mounted": layers.is_mount(),
            "image mounted": mounting.target.is_mount(),
        }[moment]
    return False


@pytest.mark.parametrize(
    ("moment", "signum"),
    [
        ("begun", signal.SIGTERM),
        ("planned", signal.SIGINT),
        ("layers mounted", signal.SIGINT),
        ("image mounted", signal.SIGTERM),
    ],
)
async def test_a_mount_that_is_interrupted_is_none_or_all_of_one(
    mounting: Mounting, moment: str, signum: signal.Signals
) -> None:
    await indexed(mounting)
    words = [sys.executable, "-m", "p2pdist.cli.main", "mount", "app:1", str(mounting.target)]
    words += ["--endpoint", mounting.endpoint, "--state-dir", str(mounting.state)]
    running = await asyncio.create_subprocess_exec(*words, stderr=asyncio.subprocess.PIPE)
    assert running.stderr is not None
    try:
        while running.returncode is None and not begun(mounting, moment):  # noqa: ASYNC110
            await asyncio.sleep(0)  # others say nothing of how far they are
        with contextlib.suppress(ProcessLookupError):
            running.send_signal(signum)
        said = (await running.stderr.read()).decode()
        status = await running.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()

    assert "Traceback" not in said
    assert status in (0, 128 + signum), said
    if status == 0:
        passwd = mounting.target / "etc/passwd"
        assert await asyncio.to_thread(passwd.read_bytes) == b"root\n"
    else:
        assert list(mounting.target.iterdir()) == []
        assert list(mounting.state.iterdir()) == []
        assert worker_pids(mounting.state) == []


async def test_what_is_in_the_way_is_named(mounting: Mounting, tmp_path: Path) -> None:
    (mounting.target / "file").touch()
    done = await mounting.mount()
    assert done.returncode == 2
    assert "is not empty" in done.stderr
    (mounting.target / "file").unlink()
    assert "knows no such" in (await mounting.mount("nothing:1")).stderr
    assert not list(mounting.state.iterdir())
    done = await mounting.unmount()
    assert done.returncode == 3
    assert "mounted nothing at" in done.stderr
    assert (await mounting.mount()).returncode == 0
    assert "already" in (await mounting.mount()).stderr
    with (mounting.target / "etc/passwd").open():
        busy = await mounting.unmount()
        assert busy.returncode == 75
        assert os.strerror(errno.EBUSY) in busy.stderr
    assert (await mounting.unmount()).returncode == 0
