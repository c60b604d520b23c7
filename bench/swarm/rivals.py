"""Other programs that bring the same files to the same hosts."""

from __future__ import annotations

import hashlib
import sys
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final

from bench.swarm.contenders import BEGIN_IN_S, Pulled, World
from bench.swarm.images import blob_path, make_torrent
from p2pdist.process.clock import unix_s
from tests.e2e.harness.image import Image
from tests.e2e.harness.p2p import REPOSITORY_ROOT
from tests.e2e.harness.processes import LabError, run, wait_until

TORRENT_PORT: Final = 6881
TORRENT_TRACKER_PORT: Final = 6969
SEED_READY_S: Final = 4.0


class _BitTorrent(ABC):
    """No registry: the seed is on the registry's host, and pieces are checked by SHA-1.

    SHA-256 is checked when the time is taken, so that all have checked what they have.
    """

    def start(self, world: World) -> None:
        announce = f"http://{world.core.address}:{TORRENT_TRACKER_PORT}/announce"
        self._torrent = world.lab.work / "image.torrent"
        self._torrent.write_bytes(make_torrent(world.image, announce))
        module = "bench.swarm.torrent_tracker"
        argv = [sys.executable, "-m", module, str(TORRENT_TRACKER_PORT)]
        world.processes.append(world.start("torrents", world.core, *argv))
        seed = world.lab.work / "seed"
        inner = seed if len(world.image.layers) == 1 else seed / "image"
        inner.mkdir(parents=True)
        for layer in world.image.layers:
            path = blob_path(world.image, layer)
            (inner / path.name).symlink_to(path)
        argv = self._seed(seed)
        world.processes.append(world.start("seed", world.registry.host, *argv))
        time.sleep(SEED_READY_S)  # it checks its files and announces itself; it tells nobody when

    @abstractmethod
    def _seed(self, directory: Path) -> list[str]:
        """The command that serves what lies in `directory`."""

    @abstractmethod
    def _download(self, world: World, home: Path) -> list[str]:
        """The command that fetches into `home`/got, and then makes `home`/done with the time."""

    def pull(self, world: World, timeout_s: float) -> list[Pulled]:
        start_at = unix_s() + BEGIN_IN_S
        self._homes = [world.lab.work / f"torrent-{host.name}" for host in world.hosts]
        for host, home in zip(world.hosts, self._homes, strict=True):
            home.mkdir()
            wait = f'sleep {start_at - unix_s():.3f}; exec "$@"'
            argv = ["sh", "-c", wait, "sh", *self._download(world, home)]
            world.processes.append(world.start("torrent", host, *argv, cwd=home))
        ended = [home / "done" for home in self._homes]
        wait_until(
            lambda: all(path.exists() and path.read_text().endswith("\n") for path in ended),
            "end of a torrent",
            timeout_s=BEGIN_IN_S + timeout_s,
        )
        return [Pulled(float(path.read_text()) - start_at) for path in ended]

    def check(self, world: World) -> None:
        for home in self._homes:
            _check(world.image, home / "got")

    def copies(self, world: World) -> float | None:
        return None

    def trouble(self, world: World) -> dict[str, int]:
        return {}


class Aria2(_BitTorrent):
    name = "aria2"

    def _seed(self, directory: Path) -> list[str]:
        return [*_ARIA2, "--check-integrity=true", f"--dir={directory}", str(self._torrent)]

    def _download(self, world: World, home: Path) -> list[str]:
        hook = world.lab.work / "done.sh"
        hook.write_text('#!/bin/sh\ndate +%s.%N > "$PWD/done"\n')
        hook.chmod(0o755)
        got, done = f"--dir={home / 'got'}", f"--on-bt-download-complete={hook}"
        return [*_ARIA2, got, done, str(self._torrent)]


class Libtorrent(_BitTorrent):
    """As its Debian package has it, by the interpreter that the package is for."""

    name = "libtorrent"

    def _seed(self, directory: Path) -> list[str]:
        return [*_LIBTORRENT, "seed", str(self._torrent), str(directory), str(TORRENT_PORT)]

    def _download(self, world: World, home: Path) -> list[str]:
        got = str(home / "got")
        return [*_LIBTORRENT, "fetch", str(self._torrent), got, str(TORRENT_PORT)]


_LIBTORRENT: Final = ("/usr/bin/python3", str(REPOSITORY_ROOT / "bench/swarm/libtorrent_host.py"))

_ARIA2: Final = (
    "aria2c --no-conf --seed-ratio=0.0 --enable-dht=false --bt-enable-lpd=false "
    "--enable-peer-exchange=false --bt-max-peers=0 --file-allocation=none --summary-interval=0 "
    "--console-log-level=warn --show-console-readout=false --bt-request-peer-speed-limit=0 "
    f"--follow-torrent=mem --listen-port={TORRENT_PORT}"
).split()


def _check(image: Image, got: Path) -> None:
    for layer in image.layers:
        name = layer.digest.removeprefix("sha256:")
        path = got / name if len(image.layers) == 1 else got / "image" / name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != name:
            raise LabError(f"{path}: has {found}")


def versions() -> dict[str, str]:
    code = "import libtorrent; print(libtorrent.__version__)"
    return {
        Aria2.name: run(["aria2c", "--version"]).splitlines()[0],
        Libtorrent.name: run([_LIBTORRENT[0], "-c", code]).strip(),
    }
