"""The demonstration's upstream: ranges, and honest counting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.demo.image import DemoImage, make_image
from p2pdist.demo.registry import DemoRegistry
from tests.fakes.http_server import serve_app


@pytest.fixture
def image(tmp_path: Path) -> DemoImage:
    made = make_image(tmp_path, 1_000_000)
    (tmp_path / "manifest.json").write_bytes(made.manifest)
    return made


@pytest.fixture
async def url(tmp_path: Path, image: DemoImage) -> AsyncIterator[str]:
    async with serve_app(DemoRegistry(tmp_path).app()) as base_url:
        yield base_url


async def test_blobs_and_ranges_are_counted_by_what_was_sent(url: str, image: DemoImage) -> None:
    digest, path = next((d, p) for d, p in image.blobs.items() if p.stat().st_size > 100_000)
    blob = f"{url}/v2/shop/app/blobs/{digest}"
    async with aiohttp.ClientSession() as session:
        async with session.get(blob) as answer:
            whole = await answer.read()
        async with session.get(blob, headers={"Range": "bytes=10-109"}) as answer:
            part, status = await answer.read(), answer.status
        async with session.get(f"{url}/stats") as answer:
            stats = await answer.json()

    assert whole == path.read_bytes()
    assert (status, part) == (206, whole[10:110])
    assert stats == {"payload_bytes": len(whole) + 100, "blob_bodies": 2}


@pytest.mark.parametrize("path", ["blobs/sha256:" + "0" * 64, "manifests/2"])
async def test_what_is_not_there_is_404(url: str, path: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{url}/v2/shop/app/{path}") as answer,
    ):
        assert answer.status == 404
