"""Rows 93 to 98: what fails below a mounted image while its files are read. Never wrong bytes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

import aiohttp
import pytest

from p2pdist.peer.daemon import RunningPeer
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.streaming.fuse import syscalls
from p2pdist.streaming.image_mount import mounts
from p2pdist.tracker.daemon import running_tracker
from tests.cluster.test_layer_indexes import index_at
from tests.e2e.harness.processes import run
from tests.e2e.streaming.test_mount import Mounting
from tests.fakes.cluster import Lab, announced, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.liars import Liar, corrupt, joined
from tests.faults.records import recorded
from tests.streaming.archives import archive, digest, file, gzipped

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.timeout(180)]

FILES: Final = 12
CONTENTS: Final = [random_bytes(1 << 20, 100 + number) for number in range(FILES)]
PLAIN: Final = archive(*(file(f"f{number:02}", body) for number, body in enumerate(CONTENTS)))
LAYER: Final = gzipped(PLAIN)
DIGEST: Final = digest(LAYER)
HELD_S: Final = 2.0
"""A read that nobody can answer is seen to wait for so long."""
READ_S_MAX: Final = 20.0
"""Of all files, with whatever is broken and another source there."""
DISK_BYTES: Final = 280 << 20


class Scene:
    """A registry, a tracker and a proxy that has indexed the image; each may end by itself."""

    def __init__(self, lab: Lab, work: Path, registry: FakeRegistry) -> None:
        self.lab = lab
        self.registry = AsyncExitStack()
        self.tracker = AsyncExitStack()
        self.proxy = AsyncExitStack()
        self._fake = registry
        self._work = work
        self._settings = lab.settings("proxy")

    async def start(self, client: aiohttp.ClientSession) -> None:
        await self.registry.enter_async_context(self._fake)
        self.lab.upstreams = {"docker.io": self._fake.url}
        self._fake.add_image("library/app", "1", [LAYER], archives=[PLAIN])
        settings = self.lab.settings("tracker")
        self.running_tracker = await self.tracker.enter_async_context(running_tracker(settings))
        self.lab.trackers.append(url_of(self.running_tracker.control, "tcp"))
        self._settings = self.lab.settings("proxy")
        proxy = await self.start_proxy()
        self.lab.proxies.append(url_of(proxy.registry))
        listens = replace(
            self._settings.proxy,
            listen=proxy.registry,
            exchange_listen=proxy.running.exchange_address,
        )
        self._settings = replace(self._settings, proxy=listens)
        await pull(client, url_of(proxy.registry))
        await index_at(client, url_of(proxy.registry), DIGEST)

    async def start_proxy(self) -> RunningProxy:
        """Also again, at the same addresses and with what it had."""
        return await self.proxy.enter_async_context(running_proxy(self._settings))

    async def mount(self, peer: RunningPeer) -> Path:
        mounting = Mounting(self.lab, peer, self._work)
        done = await mounting.mount()
        assert done.returncode == 0, done.stderr
        return mounting.target


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def scene(tmp_path: Path, client: aiohttp.ClientSession) -> AsyncIterator[Scene]:
    async with open_lab(tmp_path / "lab", {}) as lab:
        lab.layer_index = True
        made = Scene(lab, tmp_path, FakeRegistry())
        async with made.registry, made.tracker, made.proxy:
            await made.start(client)
            async with lab.stack:  # peers end before what they talk to
                yield made
                for place, plan in mounts(tmp_path / "state"):
                    await asyncio.to_thread(syscalls.unmount, plan.target)
                    await asyncio.to_thread(syscalls.unmount, str(place / "layers"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where the state of the peer `peer` lies."""
    disk = tmp_path / "lab" / "peer"
    disk.mkdir(parents=True)
    run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(disk)])
    try:
        yield disk
    finally:
        run(["umount", "--lazy", str(disk)])


async def read(target: Path, numbers: Iterable[int]) -> list[bytes]:
    def read_all() -> list[bytes]:
        return [(target / f"f{number:02}").read_bytes() for number in numbers]

    return await asyncio.to_thread(read_all)


async def all_right(target: Path, numbers: Iterable[int] = range(FILES)) -> float:
    """Read these files, hold them against what they are, and return the seconds it took."""
    wanted, began_s = list(numbers), time.monotonic()
    assert await read(target, wanted) == [CONTENTS[number] for number in wanted]
    return time.monotonic() - began_s


def spoil(lab: Lab, peer: str) -> None:
    """One bit in every 64 KiB of the layer as that peer has it."""
    name = DIGEST.partition(":")[2]
    data = lab.directory / peer / "peer/store/blobs/sha256" / name[:2] / name / "data"
    with data.open("r+b") as opened:
        for at in range(0, len(LAYER), 64 << 10):
            opened.seek(at)
            byte = opened.read(1)[0]
            opened.seek(at)
            opened.write(bytes([byte ^ 1]))


async def test_row_93_what_rots_below_a_mount_is_fetched_anew(
    scene: Scene, client: aiohttp.ClientSession
) -> None:
    peer = await scene.lab.peer("peer")
    target = await scene.mount(peer)
    await pull(client, url_of(peer.mirror))
    with recorded(93, "the peer's copy changes on disk below a mounted image") as record:
        await asyncio.to_thread(spoil, scene.lab, "peer")
        took_s = await all_right(target)
        rotted = peer.running.node.counters.rejected["rot"]
        assert rotted > 0
        record.took("all files", took_s, at_most_s=READ_S_MAX)
        record.retries = rotted
        record.outcome = "every file right; what rotted came anew from the proxy"


async def test_row_94_a_neighbour_that_lies_is_left(scene: Scene) -> None:
    peer = await scene.lab.peer("peer")
    target = await scene.mount(peer)
    node = peer.running.node
    evil = Liar(node.keyring, DIGEST, LAYER, corrupt(1.0))
    secret = read_secret(scene.lab.keys.secret_file)
    with recorded(94, "a neighbour sends wrong bytes of what a mount reads") as record:
        await all_right(target, [0])  # the blob is in motion
        async with joined(evil, 0xEE, [peer.running.exchange_address], secret, DIGEST):
            took_s = await all_right(target)
        assert evil.chunks_sent > 0
        assert node.counters.rejected["hash"] > 0
        record.took("all files", took_s, at_most_s=READ_S_MAX)
        record.retries = node.counters.rejected["hash"]
        banned = "banned" if node.core.trust.bans_total else "not banned"
        record.outcome = f"every file right; the liar {banned}"


async def test_row_95_a_proxy_that_dies_holds_up_what_nobody_else_has(
    scene: Scene, client: aiohttp.ClientSession
) -> None:
    """Half of the files lie at a peer, the others at the proxy alone."""
    half = FILES // 2
    other, peer = await scene.lab.peer("other"), await scene.lab.peer("peer")
    target = await scene.mount(peer)
    there = len(LAYER) // 2 + (1 << 20)
    url = f"{url_of(other.mirror)}/v2/library/app/blobs/{DIGEST}"
    headers = {"Range": f"bytes=0-{there}", "P2pdist-Demand": "1"}
    async with client.get(url, headers=headers, raise_for_status=True) as answer:
        assert await answer.read() == LAYER[: there + 1]
    await announced(scene.running_tracker, other)
    with recorded(95, "the proxy dies while a mount reads") as record:
        await scene.proxy.aclose()
        took_s = await all_right(target, range(half))
        record.took("what a peer has", took_s, at_most_s=READ_S_MAX)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(all_right(target, [FILES - 1]))
            done, _ = await asyncio.wait([waiting], timeout=HELD_S)
            assert not done, "nobody has it, and it is waited for"
            await scene.start_proxy()
        record.took("what was waited for", waiting.result(), at_most_s=HELD_S + READ_S_MAX)
        await all_right(target)
        record.outcome = "a peer's half was read; what waited came with the proxy"


async def test_row_96_without_a_tracker_reads_go_on(scene: Scene) -> None:
    peer = await scene.lab.peer("peer")
    target = await scene.mount(peer)
    await all_right(target, [0])
    with recorded(96, "the tracker dies while a mount reads") as record:
        await scene.tracker.aclose()
        record.took("all files", await all_right(target), at_most_s=READ_S_MAX)
        record.outcome = "every file right"


async def test_row_97_a_full_disk_stores_nothing_and_shows_all(
    small_disk: Path, scene: Scene
) -> None:
    peer = await scene.lab.peer("peer")
    target = await scene.mount(peer)
    await all_right(target, [0])
    with recorded(97, "the disk of the peer is full while a mount reads") as record:
        filler = small_disk / "filler"
        with filler.open("wb", buffering=0) as opened:
            place = os.statvfs(small_disk)
            os.posix_fallocate(opened.fileno(), 0, place.f_bavail * place.f_frsize)
        assert os.statvfs(small_disk).f_bavail == 0
        record.took("all files", await all_right(target), at_most_s=READ_S_MAX)
        filler.unlink()
        record.outcome = "every file right"


async def test_row_98_a_registry_that_is_down_is_not_missed(scene: Scene) -> None:
    with recorded(98, "the registry is down when an image is mounted") as record:
        await scene.registry.aclose()
        peer = await scene.lab.peer("peer")
        target = await scene.mount(peer)
        record.took("all files", await all_right(target), at_most_s=READ_S_MAX)
        record.outcome = "mounted, every file right"
