"""What the mirror of a host tells its snapshotter, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci import wanted_images
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.oci.wanted_images import decode_wanted_image
from p2pdist.peer import snapshotter_desk
from p2pdist.peer.mirror import MirrorBackend
from p2pdist.peer.wanted_images import WantedImages
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.registry import FakeRegistry

IMAGE = layered_image(
    ImageName("docker.io", "library/app"), [(digest_of(b"blob"), 4)], [digest_of(b"archive")]
)


@dataclass(frozen=True)
class Desk:
    backend: MirrorBackend
    client: aiohttp.ClientSession
    url: str

    @property
    def wanted(self) -> WantedImages:
        return self.backend.wanted

    async def coming(self, query: str = "") -> tuple[int, bytes]:
        url = self.url.replace(wanted_images.WANTED, wanted_images.COMING)
        async with self.client.get(url + query) as answer:
            return answer.status, await answer.read()

    async def post(self, query: str) -> int:
        async with self.client.post(f"{self.url}{query}") as answer:
            return answer.status


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_lab(tmp_path, {}) as lab, aiohttp.ClientSession() as client:
        peer = await lab.peer("a")
        yield Desk(peer.backend, client, url_of(peer.mirror) + wanted_images.WANTED)


async def test_an_engine_waits_until_the_snapshotter_says_that_all_is_shown(desk: Desk) -> None:
    async with asyncio.TaskGroup() as group:
        question = group.create_task(desk.client.get(desk.url))
        while not desk.wanted.attended:  # noqa: ASYNC110  # its connection has no event
            await asyncio.sleep(0.005)
        pull = group.create_task(desk.wanted.offer(IMAGE))
        async with await question as answer:
            told = decode_wanted_image(await answer.read())
        assert told.image == IMAGE
        assert not pull.done()
        assert await desk.post(f"?number={told.number}") == 204


@pytest.mark.parametrize("number", ["", "-1", "x", "9" * 99, None])
async def test_an_answer_without_a_number_is_refused(desk: Desk, number: str | None) -> None:
    assert await desk.post("" if number is None else f"?number={number}") == 400


async def test_other_methods_are_refused(desk: Desk) -> None:
    async with desk.client.put(desk.url) as answer:
        assert answer.status == 405


async def test_no_other_host_may_hold_up_pulls(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotter_desk, "to_other_host", lambda _: True)

    async with desk.client.get(desk.url) as answer:
        assert answer.status == 403
    assert await desk.post("?number=1") == 403
    assert (await desk.coming())[0] == 403
    assert not desk.wanted.attended


async def test_a_question_ends_with_the_mirror(desk: Desk) -> None:
    question = asyncio.get_running_loop().create_task(desk.client.get(desk.url))
    while not desk.wanted.attended:  # noqa: ASYNC110  # its connection has no event
        await asyncio.sleep(0.005)

    desk.wanted.close()

    async with await question as answer:
        assert answer.status == 204


@pytest.mark.parametrize("after", ["", "-1", "x", "9" * 99])
async def test_a_question_after_no_number_is_refused(desk: Desk, after: str) -> None:
    assert (await desk.coming(f"?after={after}"))[0] == 400


AGENTS = [("containerd/1.6.20", "GET", True), ("containerd/1.6.20", "HEAD", False),
          ("docker/26.1.5 go/go1.24", "GET", False)]  # fmt: skip


@pytest.mark.parametrize(("agent", "method", "tells"), AGENTS)
async def test_a_snapshotter_hears_of_an_image_when_its_manifest_is_asked_for(
    tmp_path: Path, agent: str, method: str, *, tells: bool
) -> None:
    """Before its config is, and not when an engine only looks which manifest a tag stands for."""
    async with (
        FakeRegistry() as registry,
        open_lab(tmp_path, {"docker.io": registry.url}) as lab,
        aiohttp.ClientSession() as client,
    ):
        registry.add_image("library/app", "1", [b"one", b"other"])
        await lab.proxy()
        peer = await lab.peer("a")
        desk = Desk(peer.backend, client, url_of(peer.mirror) + wanted_images.WANTED)
        question = asyncio.get_running_loop().create_task(desk.coming())
        while not peer.backend.coming.attended:  # noqa: ASYNC110  # its connection has no event
            await asyncio.sleep(0.005)

        url, named = f"{url_of(peer.mirror)}/v2/library/app/manifests/1", {"User-Agent": agent}
        async with client.request(method, url, headers=named) as answer:
            assert answer.status == 200
        if not tells:
            await peer.backend.close()
        status, body = await question

        assert status == (200 if tells else 204)
        if tells:
            assert [layer.digest for layer in decode_wanted_image(body).image.layers] == [
                digest_of(b"one"),
                digest_of(b"other"),
            ]
            assert registry.count("GET", "/blobs/") == 1, "of the config"
