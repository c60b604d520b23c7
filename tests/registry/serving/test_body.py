from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest
import uvloop

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import FileSpan, PullContext
from p2pdist.registry.serving import body
from p2pdist.registry.serving.pull import PullRecord
from tests.fakes.backend import FakeBackend, FakeSource, SeededContent
from tests.registry.serving.registry_lab import registry_lab

BIG = os.urandom(64) * (3 << 14)  # 3 MiB: several slices


class ScriptedSource(FakeSource):
    """Yields `items` whatever is asked for."""

    items: list[FileSpan | bytes]

    async def read(self, start: int, stop: int) -> AsyncIterator[FileSpan | bytes]:
        for item in self.items:
            yield item


class ScriptedBackend(FakeBackend):
    def __init__(self, directory: Path, *items: FileSpan | bytes) -> None:
        super().__init__(SeededContent(), directory)
        self.items = items

    async def open_blob(self, name: ImageName, digest: Digest, context: PullContext) -> FakeSource:
        source = ScriptedSource(digest, self._blob(name, digest), fileno=None, piece_bytes=1)
        source.items = list(self.items)
        return source


@pytest.fixture
def fileno(tmp_path: Path) -> Any:
    path = tmp_path / "data"
    path.write_bytes(BIG)
    number = os.open(path, os.O_RDONLY)
    yield number
    os.close(number)


async def outcome_of(directory: Path, data: bytes, *items: FileSpan | bytes) -> tuple[str, int]:
    async with registry_lab(directory, ScriptedBackend(directory, *items)) as lab:
        _, target = lab.seed_blob(data)
        with suppress(IncompleteRead):
            assert (await lab.get(target)).body == data
        record = await lab.wait_record()
        return record.outcome, record.sent_bytes


async def test_files_and_bytes_mix_in_one_body(tmp_path: Path, fileno: int) -> None:
    half = len(BIG) // 2
    items = (b"head", FileSpan(fileno, 0, half), BIG[half:-5], FileSpan(fileno, len(BIG) - 5, 5))
    outcome = await outcome_of(tmp_path, b"head" + BIG, *items)
    assert outcome == ("served", 4 + len(BIG))


async def test_a_file_that_shrank_cuts_the_body(tmp_path: Path, fileno: int) -> None:
    items = FileSpan(fileno, 0, len(BIG) + 1), b"more"
    assert await outcome_of(tmp_path, BIG + b"xmore", *items) == ("cut", len(BIG))


def test_a_file_that_shrank_cuts_the_body_on_uvloop_too(tmp_path: Path, fileno: int) -> None:
    items = FileSpan(fileno, 0, len(BIG) + 1), b"more"
    assert uvloop.run(outcome_of(tmp_path, BIG + b"xmore", *items)) == ("cut", len(BIG))


async def test_a_source_that_ends_early_cuts_the_body(tmp_path: Path) -> None:
    assert await outcome_of(tmp_path, b"abcdef", b"abc") == ("cut", 3)


async def test_a_source_that_gives_too_much_cuts_the_body(tmp_path: Path) -> None:
    assert await outcome_of(tmp_path, b"abcdef", b"abc", b"defg") == ("cut", 3)


async def test_a_descriptor_that_is_gone_cuts_the_body(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert await outcome_of(tmp_path, b"abcdef", b"abc", FileSpan(9999, 0, 3)) == ("cut", 3)
    assert "Bad file descriptor" in caplog.text


async def test_files_go_by_sendfile(
    tmp_path: Path, fileno: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, slices = asyncio.get_running_loop(), []
    sendfile = loop.sendfile

    async def spy(transport: Any, file: Any, offset: int, count: int, **more: Any) -> int:
        slices.append(count)
        return await sendfile(transport, file, offset, count, **more)

    monkeypatch.setattr(loop, "sendfile", spy)
    outcome = await outcome_of(tmp_path, BIG, FileSpan(fileno, 0, len(BIG)))
    assert outcome == ("served", len(BIG))
    assert slices == [body.SLICE_BYTES] * 3


async def test_a_file_system_without_sendfile_is_read_instead(
    tmp_path: Path, fileno: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    async def refuse(*args: Any, **more: Any) -> int:
        calls.append(args)
        raise asyncio.SendfileNotAvailableError

    monkeypatch.setattr(asyncio.get_running_loop(), "sendfile", refuse)
    outcome = await outcome_of(tmp_path, BIG, FileSpan(fileno, 0, len(BIG)))
    assert (outcome, len(calls)) == (("served", len(BIG)), 1)


def test_uvloop_has_no_sendfile_and_serves_all_the_same(tmp_path: Path, fileno: int) -> None:
    outcome = uvloop.run(outcome_of(tmp_path, BIG, FileSpan(fileno, 0, len(BIG))))
    assert outcome == ("served", len(BIG))


async def _stall(directory: Path, item: FileSpan | bytes) -> tuple[PullRecord, bytes]:
    """Ask, read nothing until the endpoint gave up, then all that still comes."""
    async with registry_lab(directory, ScriptedBackend(directory, *[item] * 8)) as lab:
        _, target = lab.seed_blob(BIG * 8)
        reader, writer = await lab.connect()
        writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        record = await lab.wait_record()
        await reader.readuntil(b"\r\n\r\n")
        received = await reader.read(-1)
        writer.close()
    return record, received


async def test_a_client_that_does_not_read_a_file_is_dropped(
    tmp_path: Path, fileno: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "CLIENT_STALL_S", 0.05)
    record, received = await _stall(tmp_path, FileSpan(fileno, 0, len(BIG)))
    assert record.outcome == "client_stalled"
    assert received == (BIG * 8)[: len(received)]


async def test_a_client_that_does_not_read_leaves_no_buffer_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "CLIENT_STALL_S", 0.05)
    record, received = await _stall(tmp_path, BIG)
    assert record.outcome == "client_stalled"
    # What the kernel had taken of the last slice still arrives; the rest of it is forgotten.
    assert len(received) < record.sent_bytes + body.SLICE_BYTES
