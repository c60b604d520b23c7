from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import FileSpan, PullContext
from p2pdist.registry.serving import blobs
from tests.fakes.backend import FakeBackend, FakeSource, SeededContent
from tests.fakes.http_client import raw_exchange
from tests.registry.serving.registry_lab import RegistryLab, registry_lab

DATA = bytes(range(256)) * 40
BIG = bytes(range(256)) * (1 << 16)  # 16 MiB: more than any socket buffer takes


class GatedSource(FakeSource):
    """Gives its first piece at once and the others when `gate` opens."""

    gate: asyncio.Event

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        async for item in super().read(start, stop):
            yield item
            await self.gate.wait()


class GatedBackend(FakeBackend):
    def __init__(self, directory: Path) -> None:
        super().__init__(SeededContent(), directory)
        self.gate = asyncio.Event()

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> FakeSource:
        source = GatedSource(digest, self._blob(name, digest), fileno=None, piece_bytes=1000)
        source.gate = self.gate
        self.opened.append(source)
        return source


def request_bytes(target: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {target} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


async def test_a_served_blob_is_recorded(lab: RegistryLab) -> None:
    digest, target = lab.seed_blob(DATA)
    await lab.get(target)
    record = await lab.wait_record()
    assert (record.kind, record.reference, record.status) == ("blob", digest, 200)
    assert (record.outcome, record.sent_bytes) == ("served", len(DATA))
    assert record.bytes_by_source == {"upstream": len(DATA)}


async def test_each_source_is_closed(lab: RegistryLab) -> None:
    _, target = lab.seed_blob(DATA)
    for headers in ((), [("Range", "bytes=5-9")], [("Range", "bytes=99999-")]):
        await lab.get(target, headers=headers)
        await lab.wait_record()
    assert [source.closed for source in lab.backend.opened] == [True] * 3


async def test_a_source_that_fails_to_close_adds_nothing_to_the_body(
    lab: RegistryLab, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(source: FakeSource) -> None:
        raise OSError("close failed")

    monkeypatch.setattr(FakeSource, "close", fail)
    _, target = lab.seed_blob(DATA)
    received = await raw_exchange(lab.base_url, request_bytes(target, "Connection: close"))
    assert received.endswith(b"\r\n\r\n" + DATA)
    assert "close failed" in caplog.text


async def test_a_head_and_a_304_open_nothing(lab: RegistryLab) -> None:
    digest, target = lab.seed_blob(DATA)
    await lab.get(target, method="HEAD")
    await lab.get(target, headers=[("If-None-Match", f'"{digest}"')])
    assert lab.backend.opened == []


async def test_rc36_no_status_line_before_the_first_piece(lab: RegistryLab) -> None:
    _, target = lab.seed_blob(DATA)
    lab.backend.fail_at = 0
    answer = await lab.get(target)
    assert (answer.status, answer.error_codes) == (404, ["BLOB_UNKNOWN"])
    record = await lab.wait_record()
    assert (record.status, record.outcome, record.sent_bytes) == (404, "failed", 0)


@pytest.mark.parametrize("warm", [False, True])
async def test_rc40_a_body_without_sources_ends_short_by_fin(lab: RegistryLab, warm: bool) -> None:
    _, target = lab.seed_blob(DATA)
    if warm:
        await lab.get(target)
        await lab.wait_record()
    lab.backend.fail_at = 3000
    # A reset would raise ConnectionResetError in `raw_exchange` instead of an end.
    received = await raw_exchange(lab.base_url, request_bytes(target))
    head, _, body = received.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(DATA)}".encode() in head
    assert body == DATA[:3000]
    record = await lab.wait_record()
    assert (record.status, record.outcome, record.sent_bytes) == (200, "cut", 3000)
    assert lab.backend.opened[-1].closed


async def test_rc41_a_range_resumes_after_a_cut(lab: RegistryLab) -> None:
    _, target = lab.seed_blob(DATA)
    lab.backend.fail_at = 3000
    await raw_exchange(lab.base_url, request_bytes(target))
    lab.backend.fail_at = None
    answer = await lab.get(target, headers=[("Range", "bytes=3000-")])
    assert (answer.status, answer.body) == (206, DATA[3000:])


@pytest.mark.parametrize("warm", [False, True])
async def test_rc44_a_client_that_leaves_is_normal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, warm: bool
) -> None:
    backend = FakeBackend(SeededContent(), tmp_path, piece_bytes=1 << 20)
    async with registry_lab(tmp_path, backend) as lab:
        _, target = lab.seed_blob(BIG)
        if warm:
            await lab.get(target)
            await lab.wait_record()
        reader, writer = await lab.connect()
        writer.write(request_bytes(target, "Range: bytes=0-"))
        await reader.readexactly(1000)
        writer.transport.abort()
        record = await lab.wait_record()
        assert (record.status, record.outcome) == (206, "client_gone")
        assert record.sent_bytes < len(BIG)
        assert backend.opened[-1].closed
        assert not backend.opened[-1].closed_while_reading
    assert [r for r in caplog.records if r.levelname in ("WARNING", "ERROR")] == []


async def test_a_client_that_leaves_while_its_source_waits_frees_the_source(
    tmp_path: Path,
) -> None:
    backend = GatedBackend(tmp_path)
    async with registry_lab(tmp_path, backend) as lab:
        _, target = lab.seed_blob(DATA)
        reader, writer = await lab.connect()
        writer.write(request_bytes(target))
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        assert (await lab.wait_record()).outcome == "client_gone"
        assert backend.opened[0].closed


async def test_bodies_beyond_the_limit_queue(tmp_path: Path) -> None:
    backend = GatedBackend(tmp_path)
    async with registry_lab(tmp_path, backend, bodies_max=1) as lab:
        _, target = lab.seed_blob(DATA)
        reader, writer = await lab.connect()
        writer.write(request_bytes(target))
        await reader.readuntil(b"\r\n\r\n")
        async with asyncio.TaskGroup() as group:
            second = group.create_task(lab.get(target))
            third = await lab.get("/v2/")
            assert (third.status, len(backend.opened)) == (200, 1)
            backend.gate.set()
        assert second.result().body == DATA
        writer.close()


async def test_a_body_that_finds_no_place_in_time_is_sent_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "PLACE_WAIT_S", 0.01)
    backend = GatedBackend(tmp_path)
    async with registry_lab(tmp_path, backend, bodies_max=1) as lab:
        _, target = lab.seed_blob(DATA)
        reader, writer = await lab.connect()
        writer.write(request_bytes(target))
        await reader.readuntil(b"\r\n\r\n")
        answer = await lab.get(target)
        assert (answer.status, answer.error_codes) == (404, ["BLOB_UNKNOWN"])
        backend.gate.set()
        writer.close()


@pytest.mark.parametrize("warm", [False, True])
async def test_a_client_that_reads_nothing_makes_room_when_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    monkeypatch.setattr("p2pdist.registry.serving.body_places.STALLED_S", 0.2)
    monkeypatch.setattr("p2pdist.registry.serving.body_places.LOOK_AGAIN_S", 0.02)
    backend = FakeBackend(SeededContent(), tmp_path, piece_bytes=1 << 20)
    async with registry_lab(tmp_path, backend, bodies_max=1) as lab:
        _, big = lab.seed_blob(BIG)
        _, target = lab.seed_blob(DATA)
        if warm:
            await lab.get(big)
            await lab.wait_record()
        reader, writer = await lab.connect()
        writer.write(request_bytes(big))
        await reader.readuntil(b"\r\n\r\n")

        assert (await lab.get(target)).body == DATA
        records = [await lab.wait_record(), await lab.wait_record()]
        assert {record.outcome for record in records} == {"client_gone", "served"}
        writer.close()


@pytest.mark.parametrize("warm", [False, True])
async def test_a_connection_serves_blob_after_blob(lab: RegistryLab, warm: bool) -> None:
    _, target = lab.seed_blob(DATA)
    if warm:
        await lab.get(target)
    part = request_bytes(target, "Range: bytes=10-19")
    received = await raw_exchange(
        lab.base_url, part + request_bytes(target) + request_bytes("/v2/", "Connection: close")
    )
    answers = received.split(b"HTTP/1.1 ")
    assert answers[1].endswith(b"\r\n\r\n" + DATA[10:20])
    assert answers[2].endswith(b"\r\n\r\n" + DATA)
    assert answers[3].endswith(b"\r\n\r\n{}")


@pytest.mark.parametrize(
    ("headers", "demand"),
    [
        ([("Range", "bytes=0-0"), ("P2pdist-Demand", "1")], True),
        ([("Range", "bytes=0-0")], False),
        ([("Range", "bytes=0-0"), ("P2pdist-Demand", "true")], False),
        ([("P2pdist-Demand", "1")], False),
    ],
)
async def test_a_range_may_be_demanded(
    lab: RegistryLab, headers: list[tuple[str, str]], demand: bool
) -> None:
    _, target = lab.seed_blob(DATA)
    await lab.get(target, headers=headers)

    assert lab.backend.contexts[-1].demand is demand
