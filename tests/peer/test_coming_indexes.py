"""Indexes that a peer has brought for images that are about to be pulled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from p2pdist.errors import RegistryError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.layer_index import INDEXED_BYTES_MIN
from p2pdist.oci.names import ImageName
from p2pdist.peer.daemon import RunningPeer
from p2pdist.peer.mirror import INDEXES_MAX
from p2pdist.registry.ports import PullContext
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.registry import FakeRegistry

LARGE: Final = [digest_of(b"large %d" % number) for number in range(INDEXES_MAX + 8)]
"""Layers of an image: more than are sought at once."""
OTHER: Final = [digest_of(b"other %d" % number) for number in range(4)]
APP, API = "library/app", "library/api"
ENGINE: Final = {"User-Agent": "containerd/1.6.20"}


class Sought:
    """In place of the search for an index: each takes as long as the test wants."""

    def __init__(self) -> None:
        self.layers: list[Digest] = []
        self._ends: dict[Digest, asyncio.Event] = {}

    async def __call__(self, name: ImageName, layer: Digest, context: PullContext) -> Digest:
        self.layers.append(layer)
        await self._ends.setdefault(layer, asyncio.Event()).wait()
        raise RegistryError(404, "BLOB_UNKNOWN", "nobody has it")

    def end(self, *layers: Digest) -> None:
        for layer in layers:
            self._ends[layer].set()


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[RunningPeer]:
    async with (
        FakeRegistry() as registry,
        open_lab(tmp_path, {"docker.io": registry.url}) as lab,
    ):
        add_image(registry, APP, LARGE)
        add_image(registry, API, OTHER)
        await lab.proxy()
        yield await lab.peer("peer")


def add_image(registry: FakeRegistry, repository: str, layers: Sequence[Digest]) -> None:
    """One whose manifest names `layers`, which nobody has."""
    image = registry.add_image(repository, "", [b""] * len(layers))
    body: dict[str, Any] = json.loads(image.manifest_body)
    for described, layer in zip(body["layers"], layers, strict=True):
        described |= {"digest": layer, "size": INDEXED_BYTES_MIN}
    registry.add_manifest(repository, json.dumps(body).encode(), tag="1")


async def about_to_pull(peer: RunningPeer, repository: str) -> None:
    """An engine with a snapshotter asks for the manifest; return when the snapshotter has been
    told, which is after the search for indexes began."""
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        told = group.create_task(peer.backend.coming.next(None))
        await asyncio.sleep(0)  # it listens
        url = f"{url_of(peer.mirror)}/v2/{repository}/manifests/1"
        async with aiohttp.ClientSession() as client, client.get(url, headers=ENGINE) as answer:
            assert answer.status == 200
    assert told.result() is not None


async def test_only_some_indexes_are_sought_at_once_and_each_of_them_once(
    peer: RunningPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sought = Sought()
    monkeypatch.setattr(peer.backend, "layer_index", sought)
    room = INDEXES_MAX - len(OTHER)

    await about_to_pull(peer, API)
    await about_to_pull(peer, API)
    assert sought.layers == OTHER, "all of them are under way"
    await about_to_pull(peer, APP)
    await about_to_pull(peer, APP)
    assert sought.layers == [*OTHER, *LARGE[:room]], "no more may be"

    sought.end(*OTHER[:2])
    await about_to_pull(peer, APP)
    assert sought.layers == [*OTHER, *LARGE[: room + 2]]

    sought.end(*sought.layers)
