"""One host of the demonstration: checks what it gets, and reports instead of raising."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.demo.cluster import Daemon
from p2pdist.demo.host import HostPull
from p2pdist.demo.image import DemoImage, make_image
from p2pdist.demo.registry import DemoRegistry
from tests.fakes.http_server import serve_app


@pytest.fixture
def image(tmp_path: Path) -> DemoImage:
    made = make_image(tmp_path, 1_000_000)
    (tmp_path / "manifest.json").write_bytes(made.manifest)
    return made


@pytest.fixture
async def pull(tmp_path: Path, image: DemoImage) -> AsyncIterator[HostPull]:
    """A pull from the demonstration's registry itself, which stands for the mirror."""
    async with serve_app(DemoRegistry(tmp_path).app()) as url:
        port = int(url.rpartition(":")[2])
        yield HostPull(Daemon("dc1-peer1", "peer", "dc1", port, 0, 0), image.size_bytes)


async def test_a_whole_image_is_verified(pull: HostPull, image: DemoImage) -> None:
    async with aiohttp.ClientSession() as session:
        await pull.run(session, image.manifest_digest)

    assert (pull.verified, pull.error) == (True, "")
    assert pull.got_bytes == image.size_bytes


async def test_other_bytes_are_reported(pull: HostPull, image: DemoImage) -> None:
    digest, path = list(image.blobs.items())[-1]
    path.write_bytes(bytes(path.stat().st_size))
    async with aiohttp.ClientSession() as session:
        await pull.run(session, image.manifest_digest)

    assert (pull.verified, pull.error) == (False, f"{digest} came with other bytes")


async def test_a_refused_connection_is_reported(image: DemoImage) -> None:
    pull = HostPull(Daemon("dc1-peer1", "peer", "dc1", 1, 0, 0), image.size_bytes)
    async with aiohttp.ClientSession() as session:
        await pull.run(session, image.manifest_digest)

    assert not pull.verified
    assert "Cannot connect" in pull.error
