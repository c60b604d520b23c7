"""A host whose containers are to start before their layers are here."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from p2pdist.doctor import lazy
from p2pdist.doctor.findings import Finding, Level
from p2pdist.doctor.lazy import check_snapshotter
from p2pdist.settings import Settings
from p2pdist.settings import Snapshotter as SnapshotterSection
from tests.fakes.http_server import serve_app

PLUGIN = """
version = 2
[proxy_plugins.early]
  type = "snapshot"
  address = "{socket}"
"""
CRI = """
[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "early"
"""
CRI_OF_2 = """
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "early"
"""


class Host:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.mirror = "http://127.0.0.1:1"
        self.socket = root / "s.sock"
        self.write("proc/filesystems", "nodev\tproc\nnodev\toverlay\n\text4\n")
        self.write("proc/sys/kernel/osrelease", "6.9.0-1-amd64\n")
        self.write("dev/fuse", "")

    def write(self, path: str, text: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text)

    def containerd(self, *parts: str) -> None:
        text = "".join(parts).replace("{socket}", str(self.socket))
        self.write("etc/containerd/config.toml", text)

    async def look(self) -> dict[str, Finding]:
        section = SnapshotterSection(socket=self.socket, mirror=self.mirror)
        settings = replace(Settings(), snapshotter=section)
        return {found.check: found for found in await check_snapshotter(settings, self.root)}


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.fixture
def listening(host: Host) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(host.socket))
        host.socket.chmod(0o600)
        yield


async def test_a_kernel_that_can_all_of_it(host: Host) -> None:
    found = await host.look()

    assert [found[name].level for name in ("fuse", "overlayfs", "kernel")] == [Level.PASS] * 3


@pytest.mark.parametrize(
    ("release", "level"),
    [("6.8.12", Level.WARN), ("5.15.0", Level.WARN), ("", Level.WARN), ("10.0", Level.PASS)],
)
async def test_a_kernel_before_6_9_ends_containers_with_their_reader(
    host: Host, release: str, level: Level
) -> None:
    host.write("proc/sys/kernel/osrelease", release)

    assert (await host.look())["kernel"].level is level


async def test_what_the_kernel_lacks_fails(host: Host) -> None:
    (host.root / "dev/fuse").unlink()
    host.write("proc/filesystems", "nodev\tproc\n")

    found = await host.look()

    assert found["fuse"].level is found["overlayfs"].level is Level.FAIL
    assert "modprobe fuse" in found["fuse"].fix


async def test_a_mirror_that_answers_and_one_that_does_not(host: Host) -> None:
    silent = (await host.look())["mirror"]
    assert silent.level is Level.FAIL
    assert "snapshotter.mirror" in silent.fix

    async def base(_: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get("/v2/", base)
    async with serve_app(app) as url:
        host.mirror = url
        assert (await host.look())["mirror"].level is Level.PASS


@pytest.mark.parametrize("chosen", [CRI, CRI_OF_2])
async def test_a_containerd_that_starts_containers_by_it(host: Host, chosen: str) -> None:
    host.containerd(PLUGIN, chosen)

    found = (await host.look())["containerd"]

    assert (found.level, found.text) == (Level.PASS, "Kubernetes starts containers by early")


async def test_what_is_imported_counts(host: Host) -> None:
    host.containerd('imports = ["/etc/containerd/conf.d/*.toml"]\n')
    text = (PLUGIN + CRI).replace("{socket}", f"unix://{host.socket}")
    host.write("etc/containerd/conf.d/early.toml", text)

    assert (await host.look())["containerd"].level is Level.PASS


async def test_docker_may_be_who_starts_containers(host: Host) -> None:
    host.containerd(PLUGIN)
    host.write("etc/docker/daemon.json", '{"storage-driver": "early"}')

    assert (await host.look())["containerd"].text == "Docker starts containers by early"


@pytest.mark.parametrize(
    "config", ["", "[", PLUGIN.replace("{socket}", "/run/other.sock"), "proxy_plugins = 3", PLUGIN]
)
async def test_a_containerd_that_does_not_use_it_is_told_of(host: Host, config: str) -> None:
    host.containerd(config)
    host.write("etc/docker/daemon.json", "[" * 100_000)

    found = (await host.look())["containerd"]

    assert found.level is Level.WARN
    assert "config.toml" in found.fix


@pytest.mark.usefixtures("listening")
async def test_the_socket_is_for_root_alone(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lazy, "ROOT", os.getuid())
    assert (await host.look())["socket"].level is Level.PASS

    host.socket.chmod(0o666)
    assert (await host.look())["socket"].level is Level.FAIL

    host.socket.chmod(0o600)
    monkeypatch.setattr(lazy, "ROOT", os.getuid() + 1)
    assert (await host.look())["socket"].level is Level.FAIL


async def test_a_socket_that_is_none(host: Host) -> None:
    assert (await host.look())["socket"].level is Level.WARN

    host.socket.write_text("")
    assert (await host.look())["socket"].level is Level.FAIL
