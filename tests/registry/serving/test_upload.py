"""The upload budget binds what goes over `/v2/` to other hosts, and nothing that stays here."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from p2pdist.exchange.upload import Upload
from p2pdist.registry.serving import blobs, endpoint
from tests.fakes.backend import FakeBackend, SeededContent
from tests.registry.serving.registry_lab import registry_lab

DATA = os.urandom(1 << 20)
RATE = 2 << 20


@pytest.fixture
def from_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients on loopback count as other hosts."""
    for module in (blobs, endpoint):
        monkeypatch.setattr(module, "to_other_host", lambda request: True)


@pytest.mark.parametrize("from_file", [False, True], ids=["memory", "file"])
async def test_bodies_to_other_hosts_share_the_budget(
    tmp_path: Path, from_elsewhere: None, from_file: bool
) -> None:
    backend = FakeBackend(SeededContent(), tmp_path, piece_bytes=1 << 18)
    async with registry_lab(tmp_path, backend, upload=Upload(RATE)) as lab:
        _, target = lab.seed_blob(DATA)
        if from_file:  # what was asked for once lies in one
            await lab.get(target)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        answers = await asyncio.gather(lab.get(target), lab.get(target))
        took_s = loop.time() - began_s

    assert [answer.body for answer in answers] == [DATA, DATA]
    assert took_s >= 0.9 * 2 * len(DATA) / RATE


async def test_what_stays_on_this_host_takes_nothing_of_it(tmp_path: Path) -> None:
    """At a byte a second it would not be over in the time that a test has."""
    backend = FakeBackend(SeededContent(), tmp_path, piece_bytes=1 << 18)
    async with registry_lab(tmp_path, backend, upload=Upload(1)) as lab:
        _, target = lab.seed_blob(DATA)
        assert (await lab.get(target)).body == DATA


async def test_what_is_small_goes_at_once_and_is_owed(tmp_path: Path, from_elsewhere: None) -> None:
    upload = Upload(1)
    async with registry_lab(tmp_path, upload=upload) as lab:
        lab.seed_blob(DATA)
        while upload.take(1):
            pass
        assert (await lab.get("/v2/library/app/tags/list")).status == 200

    # Nothing was left; it would have been filled with a part of a byte since.
    assert not upload.take(1)


async def test_a_client_that_leaves_in_the_line_makes_room(
    tmp_path: Path, from_elsewhere: None
) -> None:
    upload = Upload(RATE)
    backend = FakeBackend(SeededContent(), tmp_path, piece_bytes=1 << 18)
    async with registry_lab(tmp_path, backend, upload=upload) as lab:
        _, target = lab.seed_blob(DATA)
        upload.owe(RATE // 4)
        _, writer = await lab.connect()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: {lab.base_url[7:]}\r\n\r\n".encode())
        await writer.drain()
        writer.transport.abort()

        assert (await lab.get(target)).body == DATA
