"""Registry contract, statements 14 to 17: ranges, alike for cold and warm blobs."""

from __future__ import annotations

import pytest

from tests.conformance.conftest import Endpoint
from tests.fakes.http_client import raw_exchange

SIZE = 2048

PARTS = {
    "bytes=500-1499": (500, 1500),
    "bytes=500-": (500, SIZE),
    "bytes=-500": (SIZE - 500, SIZE),
    "bytes=2000-5000": (2000, SIZE),
    "bytes=0-": (0, SIZE),
    "bytes=0-0": (0, 1),
    "bytes=2047-": (2047, SIZE),
    "bytes=-5000": (0, SIZE),
}
UNSATISFIABLE = ["bytes=500-0", "bytes=5000-10000", "bytes=2048-", "bytes=-0"]
IGNORED = ["items=0-1", "bytes=a-b", "bytes=-", "bytes", "bytes=", "bytes 0-1/2"]


@pytest.fixture(params=["cold", "warm"])
async def blob(request: pytest.FixtureRequest, endpoint: Endpoint) -> tuple[str, bytes]:
    """The target and the bytes of a blob, never asked for before or cached."""
    digest, data = endpoint.seed_cold_blob(SIZE)
    target = f"/v2/library/app/blobs/{digest}"
    if request.param == "warm":
        await endpoint.warm(target)
    return target, data


@pytest.mark.parametrize("header", PARTS)
async def test_rc14_parts(endpoint: Endpoint, blob: tuple[str, bytes], header: str) -> None:
    target, data = blob
    start, stop = PARTS[header]
    answer = await endpoint.get(target, headers=[("Range", header)])
    assert (answer.status, answer.body) == (206, data[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{SIZE}"
    assert answer.headers["Content-Length"] == str(stop - start)


@pytest.mark.parametrize("header", IGNORED)
async def test_rc14_what_is_no_range_is_ignored(
    endpoint: Endpoint, blob: tuple[str, bytes], header: str
) -> None:
    target, data = blob
    answer = await endpoint.get(target, headers=[("Range", header)])
    assert (answer.status, answer.body) == (200, data)


async def test_rc14_if_range(endpoint: Endpoint, blob: tuple[str, bytes]) -> None:
    target, data = blob
    etag = f'"{target.rpartition("/")[2]}"'
    for if_range, status in ((etag, 206), ('"other"', 200), (f"W/{etag}", 200)):
        headers = [("Range", "bytes=0-9"), ("If-Range", if_range)]
        answer = await endpoint.get(target, headers=headers)
        assert (answer.status, answer.body) == (status, data[:10] if status == 206 else data)


@pytest.mark.parametrize("header", UNSATISFIABLE)
async def test_rc15_416(endpoint: Endpoint, blob: tuple[str, bytes], header: str) -> None:
    answer = await endpoint.get(blob[0], headers=[("Range", header)])
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{SIZE}"
    assert answer.headers["Content-Length"] == str(len(answer.body))
    assert len(answer.error_codes) == 1


async def test_rc15_the_next_answer_follows_a_416(
    endpoint: Endpoint, blob: tuple[str, bytes]
) -> None:
    asked = f"GET {blob[0]} HTTP/1.1\r\nHost: x\r\nRange: bytes=5000-10000\r\n\r\n"
    ping = "GET /v2/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = await raw_exchange(endpoint.base_url, (asked + ping).encode())
    first, rest = received.split(b"\r\n\r\n", 1)
    lines = first.decode().lower().split("\r\n")
    length = next(int(x.split(":")[1]) for x in lines if x.startswith("content-length:"))
    assert rest[length:].startswith(b"HTTP/1.1 200 OK\r\n")


@pytest.mark.parametrize("header", ["bytes=0-1,4-5", "bytes=9000-,1-2", "bytes=0-1, -1"])
async def test_rc16_several_ranges(
    endpoint: Endpoint, blob: tuple[str, bytes], header: str
) -> None:
    answer = await endpoint.get(blob[0], headers=[("Range", header)])
    multipart = answer.headers.get_content_type() == "multipart/byteranges"
    assert answer.status in (200, 400) or (answer.status == 206 and multipart)
    assert answer.status != 200 or answer.body == blob[1]


async def test_rc17_a_plain_get_is_200_with_a_length(
    endpoint: Endpoint, blob: tuple[str, bytes]
) -> None:
    answer = await endpoint.get(blob[0])
    assert (answer.status, answer.body) == (200, blob[1])
    assert answer.headers["Content-Length"] == str(SIZE)
    assert answer.headers["Transfer-Encoding"] is None
    assert answer.headers["Accept-Ranges"] == "bytes"
