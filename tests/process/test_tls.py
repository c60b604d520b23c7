"""TLS between a transport and a protocol: what goes over it, and how it ends, on both loops."""

from __future__ import annotations

import asyncio
import gc
import ssl
import weakref
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

from p2pdist.model.ids import HostId
from p2pdist.process.host_identity import HostIdentity, identity_shown
from p2pdist.process.revoked_hosts import RevokedHosts
from p2pdist.process.tls import CERTIFICATE, TlsRefused, TlsTransport
from tests.process.identities import TestCa

DEADLINE_S = 20.0
LARGE = bytes(range(256)) * (4 << 10)
Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_it(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return run_it


class End(asyncio.Protocol):
    """Keeps what comes; `says` goes out at once."""

    def __init__(self, says: bytes = b"") -> None:
        self.says = says
        self.transport: TlsTransport
        self.heard = bytearray()
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.news = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport
        transport.write(self.says)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)
        self.news.set()

    async def wait_heard(self, count: int) -> bytes:
        async with asyncio.timeout(DEADLINE_S):
            while len(self.heard) < count and not self.lost.done():
                self.news.clear()
                await self.news.wait()
        return bytes(self.heard)

    async def wait_lost(self) -> Exception | None:
        async with asyncio.timeout(DEADLINE_S):
            return await self.lost


class Ends:
    """A client and a server, connected over loopback."""

    def __init__(self, client: End, server: End, listener: asyncio.Server) -> None:
        self.client, self.server, self._listener = client, server, listener

    @classmethod
    async def connect(cls, client: HostIdentity, server: HostIdentity, says: bytes) -> Ends:
        loop, server_end, client_end = asyncio.get_running_loop(), End(), End(says)
        listener = await loop.create_server(
            lambda: TlsTransport(server_end, server.server, server_side=True), "127.0.0.1", 0
        )
        port = listener.sockets[0].getsockname()[1]
        tls = TlsTransport(client_end, client.client, server_side=False)
        await loop.create_connection(lambda: tls, "127.0.0.1", port)
        return cls(client_end, server_end, listener)

    async def close(self) -> None:
        for end in (self.client, self.server):
            end.transport.abort()
            await end.wait_lost()
        self._listener.close()


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


PEER, TRACKER = HostId("a" * 32), HostId("b" * 32)


def test_both_ends_hear_each_other_and_know_who_it_is(ca: TestCa, run: Run) -> None:
    identities = ca.identity("peer", PEER), ca.identity("tracker", TRACKER)

    async def work() -> None:
        ends = await Ends.connect(*identities, b"hello")
        assert await ends.server.wait_heard(5) == b"hello"
        ends.server.transport.write(LARGE)
        ends.server.transport.write(b"end")
        assert await ends.client.wait_heard(len(LARGE) + 3) == LARGE + b"end"
        shown = [
            identity_shown(end.transport.get_extra_info(CERTIFICATE), RevokedHosts()).host_id
            for end in (ends.server, ends.client)
        ]
        assert shown == [PEER, TRACKER]
        await ends.close()

    run(work())


def test_what_was_written_before_a_close_arrives(ca: TestCa, run: Run) -> None:
    identities = ca.identity("peer", PEER), ca.identity("tracker", TRACKER)

    async def work() -> None:
        ends = await Ends.connect(*identities, b"hello")
        await ends.server.wait_heard(5)
        ends.server.transport.write(b"a last word")
        ends.server.transport.close()
        assert ends.server.transport.is_closing()
        ends.server.transport.write(b"too late")
        assert await ends.client.wait_lost() is None
        assert bytes(ends.client.heard) == b"a last word"
        assert await ends.server.wait_lost() is None
        await ends.close()

    run(work())


def test_both_ends_hear_why_a_client_is_refused(ca: TestCa, run: Run) -> None:
    old = ca.identity("peer", PEER, begun_days=31)
    tracker = ca.identity("tracker", TRACKER)

    async def work() -> None:
        ends = await Ends.connect(old, tracker, b"hello")
        at_client, at_server = await ends.client.wait_lost(), await ends.server.wait_lost()
        assert isinstance(at_client, TlsRefused)
        assert "our certificate has expired" in str(at_client)
        assert isinstance(at_server, TlsRefused)
        assert "not believed: certificate has expired" in str(at_server)
        assert bytes(ends.server.heard) == b""
        await ends.close()

    run(work())


def test_a_server_whose_certificate_has_ended_gets_no_word(ca: TestCa, run: Run) -> None:
    old = ca.identity("tracker", TRACKER, begun_days=31)
    peer = ca.identity("peer", PEER)

    async def work() -> None:
        ends = await Ends.connect(peer, old, b"secret")
        assert "certificate has expired" in str(await ends.client.wait_lost())
        assert "our certificate has expired" in str(await ends.server.wait_lost())
        assert bytes(ends.server.heard) == b""
        await ends.close()

    run(work())


def test_a_client_without_a_certificate_is_refused(ca: TestCa, run: Run) -> None:
    tracker = ca.identity("tracker", TRACKER)

    async def work() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        server_end, client_end = End(), End(b"hello")
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: TlsTransport(server_end, tracker.server, server_side=True), "127.0.0.1", 0
        )
        tls = TlsTransport(client_end, context, server_side=False)
        await loop.create_connection(lambda: tls, *listener.sockets[0].getsockname()[:2])
        assert "the other end shows no certificate" in str(await server_end.wait_lost())
        assert "asks for a certificate" in str(await client_end.wait_lost())
        listener.close()

    run(work())


def test_in_clear_a_server_goes_on_and_a_client_says_nothing(ca: TestCa, run: Run) -> None:
    tracker, peer = ca.identity("tracker", TRACKER), ca.identity("peer", PEER)

    async def work() -> None:
        server_end, loop = End(), asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: TlsTransport(server_end, tracker.server, server_side=True), "127.0.0.1", 0
        )
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
        writer.write(b"p2pdist")
        assert await server_end.wait_heard(7) == b"p2pdist"
        server_end.transport.write(b"answer")
        assert await reader.readexactly(6) == b"answer"
        assert server_end.transport.in_clear
        assert server_end.transport.get_extra_info(CERTIFICATE) is None
        writer.write(b"+more")
        assert await server_end.wait_heard(12) == b"p2pdist+more"
        writer.close()
        assert await server_end.wait_lost() is None
        listener.close()

        heard, done = bytearray(), asyncio.Event()

        async def old(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.read(4096))
            writer.write(b"\0\0no TLS here")
            heard.extend(await reader.read())
            writer.close()
            done.set()

        clear = await asyncio.start_server(old, "127.0.0.1", 0)
        client_end = End(b"the hello")
        tls = TlsTransport(client_end, peer.client, server_side=False)
        await loop.create_connection(lambda: tls, *clear.sockets[0].getsockname()[:2])
        assert await client_end.wait_heard(13) == b"\0\0no TLS here"
        tls.close()
        await client_end.wait_lost()
        await done.wait()
        assert tls.in_clear
        assert b"the hello" not in heard
        clear.close()

    run(work())


@pytest.mark.parametrize("garbage", [b"\x16" + bytes(64), b"\x16\x03\x01\xff\xff" + bytes(9)])
def test_garbage_ends_it_with_a_reason(ca: TestCa, run: Run, garbage: bytes) -> None:
    tracker = ca.identity("tracker", TRACKER)

    async def work() -> None:
        server_end, loop = End(), asyncio.get_running_loop()
        listener = await loop.create_server(
            lambda: TlsTransport(server_end, tracker.server, server_side=True), "127.0.0.1", 0
        )
        _, writer = await asyncio.open_connection(*listener.sockets[0].getsockname()[:2])
        writer.write(garbage)
        lost = await server_end.wait_lost()
        assert isinstance(lost, TlsRefused)
        assert str(lost).startswith("TLS failed: ")
        assert bytes(server_end.heard) == b""
        writer.close()
        listener.close()

    run(work())


def test_a_record_that_was_changed_on_the_way_is_not_taken(ca: TestCa, run: Run) -> None:
    identities = ca.identity("peer", PEER), ca.identity("tracker", TRACKER)

    async def work() -> None:
        ends = await Ends.connect(*identities, b"hello")
        await ends.server.wait_heard(5)
        forged = b"\x17\x03\x03\x00\x20" + bytes(32)
        ends.client.transport._raw.write(forged)
        assert isinstance(await ends.server.wait_lost(), TlsRefused)
        assert bytes(ends.server.heard) == b"hello"
        await ends.close()

    run(work())


def test_an_ended_connection_leaves_no_cycle(ca: TestCa) -> None:
    """What is frozen is never collected (`process.collector`)."""
    identities = ca.identity("peer", PEER), ca.identity("tracker", TRACKER)

    async def work() -> weakref.ref[End]:
        ends = await Ends.connect(*identities, b"hello")
        await ends.server.wait_heard(5)
        kept = weakref.ref(ends.server)
        ends.client.transport.close()
        await ends.server.wait_lost()
        await ends.close()
        return kept

    gc.collect()
    gc.disable()
    try:
        kept = asyncio.run(work())
        assert kept() is None
    finally:
        gc.enable()
