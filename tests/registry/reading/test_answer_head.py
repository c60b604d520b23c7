"""How long the headers of an upstream may be, and that they cannot be without end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from p2pdist.registry.reading.answer_head import HEAD_BYTES_MAX
from p2pdist.registry.reading.client import BadAnswer, UpstreamClient, UpstreamEntry
from tests.fakes.registry import FakeRegistry, Fault, ImageInfo
from tests.faults.records import recorded
from tests.registry.reading.upstream_parts import LOOPBACK, NAME, REPOSITORY, client_of, read_blob

LAYER = b"layer " * 1000
LONG = {
    "21 fields of 1 kB": {f"X-Policy-{number}": "p" * 1000 for number in range(21)},
    "a field of 20 kB": {"X-Policy": "p" * 20_000},
    "a field of 60 kB": {"X-Policy": "p" * 60_000},
    "150 fields": {f"X-Policy-{number}": "p" * 10 for number in range(150)},
}
ENDLESS = {
    "one field": [b"HTTP/1.1 200 OK\r\nX: ", b"x" * 10_000],
    "many fields": [b"HTTP/1.1 200 OK\r\n", b"X: %s\r\n" % (b"x" * 10_000)],
    "short fields": [b"HTTP/1.1 200 OK\r\n", b"X:\r\n" * 100],
    "a status line": [b"HTTP/1.1 200 ", b"x" * 10_000],
    "other answers before it": [b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100],
}
STOP_AFTER_BYTES = 64 << 20


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
def image(registry: FakeRegistry) -> ImageInfo:
    return registry.add_image(REPOSITORY, "1", [LAYER])


@pytest.mark.parametrize("form", LONG)
async def test_long_headers_are_taken(registry: FakeRegistry, image: ImageInfo, form: str) -> None:
    digest = image.layer_digests[0]
    for asked_for in ("1", digest):
        registry.faults[asked_for] = Fault(headers=LONG[form])
    async with client_of(registry) as client:
        assert (await client.get_manifest(NAME, "1")).digest == image.manifest_digest
        assert await read_blob(client, digest) == LAYER


@pytest.mark.parametrize("length", [12_000, 20_000, 60_000])
async def test_a_presigned_url_may_be_long(
    registry: FakeRegistry, image: ImageInfo, length: int
) -> None:
    digest = image.layer_digests[0]
    registry.faults[f"/v2/{REPOSITORY}/blobs/{digest}"] = Fault(
        redirect=f"{registry.storage_url}/storage/{{digest}}?X-Token={'a' * length}"
    )
    async with client_of(registry) as client:
        assert await read_blob(client, digest) == LAYER

    assert [len(a.query["X-Token"]) for a in registry.asked if "storage" in a.path] == [length]


@pytest.mark.faults
@pytest.mark.parametrize("form", ENDLESS)
async def test_a_head_without_end_is_left(form: str) -> None:
    first, more = ENDLESS[form]
    sent_bytes: list[int] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        sent_bytes.append(0)
        try:
            writer.write(first)
            while sent_bytes[-1] < STOP_AFTER_BYTES:
                writer.write(more)
                sent_bytes[-1] += len(more)
                await writer.drain()
        except ConnectionError:
            pass
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    entry = UpstreamEntry(NAME.upstream, f"http://127.0.0.1:{port}", allow_private=LOOPBACK)
    with recorded(81, "answer whose headers do not end", form) as record:
        async with UpstreamClient([entry]) as client:
            with pytest.raises(BadAnswer, match="no HTTP answer"):
                await client.get_manifest(NAME, "1")
        server.close()
        await server.wait_closed()

        assert len(sent_bytes) == 1, "asked again, which does not help"
        assert HEAD_BYTES_MAX < sent_bytes[0] < STOP_AFTER_BYTES
        record.outcome = "left after 64 KiB and what one read brought, asked once"


async def test_answers_of_one_connection_do_not_add_up(
    registry: FakeRegistry, image: ImageInfo
) -> None:
    registry.faults["1"] = Fault(headers={"X-Policy": "p" * 30_000})
    async with client_of(registry) as client:
        for _ in range(5):
            await client.get_manifest(NAME, "1")
