"""Rows 16, 39 and 40: garbage, paths and smuggled requests, on every port that listens."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import aiohttp
import pytest

from p2pdist.exchange.transport import MAGIC
from p2pdist.model.ids import Digest
from p2pdist.model.members import Address
from p2pdist.oci.routes import resolve_name
from p2pdist.process.identity import read_secret
from p2pdist.registry.serving import endpoint
from tests.fakes.cluster import Lab, url_of
from tests.fakes.evil import evil_peer
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.faults.reading import check_stores
from tests.faults.records import recorded

LAYER = random_bytes(600_000, 101)
RSS_GROWTH_MAX_KB = 20 * 1024
CONNECTIONS = 200


def peak_kb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def say(
    address: Address, data: bytes, *, wait_s: float = 2.0, first_s: float | None = None
) -> bytes:
    """Send `data`; return what comes until the other end closes, or is silent for `wait_s`.

    `first_s`: so long for the first of it instead, where an answer is sure to come.
    """
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection(address.host, address.port)
    received = b""
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(first_s or wait_s) as limit:
            while piece := await reader.read(65536):
                received += piece
                limit.reschedule(loop.time() + wait_s)
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return received


GARBAGE: dict[str, Callable[[Random], bytes]] = {
    "random bytes": lambda rng: rng.randbytes(3000),
    "the greeting, then garbage": lambda rng: MAGIC + rng.randbytes(3000),
    "a hello of 64 KiB": lambda rng: MAGIC + b"\xff\xff" + rng.randbytes(65535),
    "a length and nothing": lambda rng: MAGIC + b"\x00\x40",
    "an HTTP request": lambda rng: b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
}


@pytest.mark.parametrize("port", ["exchange", "tracker"])
async def test_row_16_garbage_closes_its_own_connection_only(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    port: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    target = peer.running.exchange_address if port == "exchange" else tracker.control
    rng = Random(16)
    with recorded(16, "garbage frames", f"{CONNECTIONS} connections to the {port} port") as record:
        await say(target, b"x")  # what the first connection costs is no growth
        before_kb = peak_kb()
        kinds = list(GARBAGE.values())
        for start in range(0, CONNECTIONS, 20):
            await asyncio.gather(
                *(
                    say(target, kinds[i % len(kinds)](rng), wait_s=0.3)
                    for i in range(start, start + 20)
                )
            )

        grown_kb = peak_kb() - before_kb
        assert grown_kb <= RSS_GROWTH_MAX_KB
        bodies = await pull(client, url_of(peer.mirror))
        assert LAYER in bodies.values()
        crashed = [r for r in caplog.records if r.levelno >= logging.ERROR and r.exc_info]
        assert crashed == []
        check_stores(lab)
        record.outcome = f"all closed, no exception, +{grown_kb / 1024:.1f} MiB; a pull works"
        record.invariants = ["I1", "I2", "I4"]


@pytest.mark.parametrize(
    "fault", ["unknown type", "oversize length", "data that nobody asked for", "half a frame"]
)
async def test_row_16_a_host_that_knows_the_secret_may_not_talk_nonsense(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, fault: str
) -> None:
    """After the handshake, too: its link is closed, and nothing else."""
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    frames = {
        "unknown type": b"\x00\x00\x00\x04\xfaabcd",
        "oversize length": b"\x7f\xff\xff\xff\x01",
        "data that nobody asked for": b"\x00\x00\x00\x20\x07" + bytes(32),
        "half a frame": b"\x00\x00",
    }
    node, secret = peer.running.node, read_secret(lab.keys.secret_file)
    digest = Digest("sha256:" + "0" * 64)
    with recorded(16, "garbage frames", f"linked host, {fault}") as record:
        address = peer.running.exchange_address
        async with evil_peer(address, secret, node.keyring, digest) as evil:
            await evil.linked.wait()
            assert evil.link is not None
            evil.link._sock.send(frames[fault])
            if fault == "half a frame":
                evil.link.close("gone")
            else:
                async with asyncio.timeout(5):
                    await evil.down.wait()

        bodies = await pull(client, url_of(peer.mirror))
        assert LAYER in bodies.values()
        check_stores(lab)
        record.outcome = "its link closed; a pull works"
        record.invariants = ["I1", "I2", "I4"]


# --- row 39: paths ------------------------------------------------------------------------------


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """Every path that this process opens from now on."""
    paths: list[str] = []
    live = True

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if live and event == "open" and isinstance(arguments[0], (str, os.PathLike)):
            paths.append(os.fspath(arguments[0]))

    sys.addaudithook(hook)  # there is no way to take it out again
    yield paths
    live = False


TRAVERSALS = [
    b"/v2/..%2f..%2fetc/manifests/1",
    b"/v2/../../etc/passwd",
    b"/v2/library/app/blobs/sha256:../../../../etc/passwd",
    b"/v2/library/app/blobs/sha256:" + b"a" * 64 + b"%00",
    b"/v2/library/app/blobs/..%2f..%2f..%2fetc%2fpasswd",
    b"/v2/library/app/manifests/..%2f..%2fsecret",
    b"/v2/library/app/manifests/1%0d%0aX-Evil:%201",
    b"/v2/" + b"a/" * 200 + b"app/manifests/1",
    b"/v2/library/app/manifests/" + b"t" * 300,
    b"/v2/%2e%2e/%2e%2e/manifests/1",
    b"/v2/library%00/app/manifests/1",
    b"/v2/library/app/blobs/SHA256:" + b"A" * 64,
    b"/v2/library/app/blobs/md5:" + b"a" * 32,
]


@pytest.mark.parametrize("port", ["mirror", "proxy"])
async def test_row_39_paths_open_no_file_and_get_an_error_of_the_registry(
    registry: FakeRegistry, lab: Lab, opened: list[str], port: str
) -> None:
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    address = peer.mirror if port == "mirror" else proxy.registry
    with recorded(39, "traversal and injection", port) as record:
        asked_before = len(registry.asked)
        opened.clear()
        for target in TRAVERSALS:
            request = b"GET " + target + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            answer = await say(address, request)
            head, _, body = answer.partition(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            assert status in (400, 404), target
            assert json.loads(body)["errors"][0]["code"], target
            assert b"X-Evil" not in head
        own = str(lab.directory)
        foreign = [
            p for p in opened if not p.startswith((own, "/proc", sys.prefix, sys.base_prefix))
        ]
        assert foreign == []
        assert len(registry.asked) == asked_before
        record.outcome = (
            f"{len(TRAVERSALS)} refused with 400 or 404, no file opened outside, upstream not asked"
        )
        record.invariants = ["I1", "I2", "I4", "I5"]


# --- row 40: smuggling --------------------------------------------------------------------------


SECOND = b"GET /v2/smuggled/app/manifests/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
HEAD = b"GET /v2/ HTTP/1.1\r\nHost: x\r\n"
POST = b"POST /v2/ HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
SMUGGLED = {
    "CL and TE": HEAD + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "two lengths": HEAD + b"Content-Length: 0\r\nContent-Length: 90\r\n\r\n",
    "obs-fold": HEAD + b"X-A: 1\r\n Content-Length: 9\r\n\r\n",
    "chunk extension with LF": POST + CHUNKED + b"\r\n0;a\n\r\n\r\n",
    "space before the colon": HEAD + b"Content-Length : 90\r\n\r\n",
    "two hosts": HEAD + b"Host: y\r\n\r\n",
    "upgrade with a body": HEAD
    + b"Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 90\r\n\r\n",
    "bare LF": b"GET /v2/ HTTP/1.1\nHost: x\nContent-Length: 90\n\n",
}


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that requests were resolved to."""
    names: list[str] = []

    def noting(path_name: str, *args: Any, **kwargs: Any) -> Any:
        names.append(path_name)
        return resolve_name(path_name, *args, **kwargs)

    monkeypatch.setattr(endpoint, "resolve_name", noting)
    return names


async def test_a_second_request_that_is_not_hidden_is_handled(lab: Lab, handled: list[str]) -> None:
    """What the tests of row 40 would see."""
    peer = await lab.peer("a")

    await say(peer.mirror, HEAD + b"\r\n" + SECOND, first_s=20)

    assert handled == ["smuggled/app"]


@pytest.mark.parametrize("name", SMUGGLED)
@pytest.mark.parametrize("port", ["mirror", "proxy"])
async def test_row_40_a_hidden_second_request_reaches_nobody(
    registry: FakeRegistry, lab: Lab, port: str, name: str, handled: list[str]
) -> None:
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")
    address = peer.mirror if port == "mirror" else proxy.registry
    with recorded(40, "request smuggling", f"{name}, {port}") as record:
        answer = await say(address, SMUGGLED[name] + SECOND, wait_s=1.0, first_s=20)

        status = answer.split(b" ", 2)[1].decode()
        assert handled == [], f"the second request was handled: {answer[:300]!r}"
        assert len(registry.asked) == 0
        assert status == ("200" if name == "upgrade with a body" else "400")
        record.outcome = f"answered {status}, the second request never handled"
        record.invariants = ["I2", "I4"]
