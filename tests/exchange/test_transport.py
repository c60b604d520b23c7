"""Two transports on loopback: links, chunks both ways, cancels, refusals."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from p2pdist.errors import LinkRefused, PeerFault
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import CONTROL_BYTES_MAX, RUNS_MAX, Link
from p2pdist.exchange.transport import (
    MAGIC,
    ExchangeLimits,
    ExchangeTransport,
    Watchers,
    keep_existing,
)
from p2pdist.model.ids import Digest, HostId, MapId, RequestId
from p2pdist.model.members import Address, Member, Place, Role

CHUNK = 256 * 1024
MIB = 1 << 20
DIGEST = Digest("sha256:" + "5" * 64)
MAP_ID = MapId(b"m" * 16)
SECRET = b"a secret of the cluster"
# What may still arrive after a cancel: what the kernel holds at both ends (NOTSENT_LOWAT keeps it
# small at the sender) and the slice on its way. Loopback buffers grow to a few MiB.
AFTER_CANCEL_BYTES_MAX = 8 * MIB


@dataclass
class End:
    """A node's handler that serves one file and notes everything."""

    fileno: int = -1
    links: list[Link] = field(default_factory=list)
    downs: list[str] = field(default_factory=list)
    frames: list[fr.Frame] = field(default_factory=list)
    chunks: dict[tuple[int, int], bytes] = field(default_factory=dict)
    smalls: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def link_up(self, link: Link) -> None:
        self.links.append(link)
        self.changed.set()

    def link_down(self, link: Link, reason: str) -> None:
        self.downs.append(reason)
        self.changed.set()

    def frame(self, link: Link, frame: fr.Frame) -> None:
        self.frames.append(frame)
        if isinstance(frame, fr.Request):
            chunks = range(frame.first, frame.first + frame.count)
            spans = [(i, i * CHUNK, CHUNK) for i in chunks]
            done = self._done(frame.request_id)
            link.send_run(frame.request_id, self.fileno, spans, done, bulk=frame.bulk)
        elif isinstance(frame, fr.Cancel):
            link.cancel_run(frame.request_id)
        elif isinstance(frame, fr.Retract):
            raise RuntimeError("a bug in the handler")
        self.changed.set()

    def _done(self, request_id: int):  # type: ignore[no-untyped-def]
        def done(nbytes: int) -> None:
            assert request_id not in self.done, "called twice"
            self.done[request_id] = nbytes
            self.changed.set()

        return done

    def chunk(self, link: Link, request_id: int, chunk: int, data: bytearray) -> None:
        self.chunks[request_id, chunk] = bytes(data)
        self.changed.set()

    def small(self, link: Link, request_id: int, media_type: str, body: bytes) -> None:
        self.smalls[request_id] = (media_type, body)
        self.changed.set()

    async def until(self, condition) -> None:  # type: ignore[no-untyped-def]
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


def transport_of(
    end: End,
    name: str,
    secret: bytes = SECRET,
    limits: ExchangeLimits | None = None,
    *,
    watchers: Watchers | None = None,
    instance: bytes = b"",
) -> ExchangeTransport:
    member = Member(HostId(name * 32), Role.PEER, Place("dc1"))
    return ExchangeTransport(
        end,
        secret=secret,
        me=lambda: member,
        limits=limits or ExchangeLimits(),
        watchers=watchers,
        instance=instance,
    )


@asynccontextmanager
async def linked(end: End, other: End) -> AsyncIterator[tuple[Link, Link]]:
    """`end` dialled `other`; yields both ends of the link."""
    ours, theirs = transport_of(end, "a"), transport_of(other, "b")
    try:
        address = await theirs.listen("127.0.0.1", 0)
        link = await ours.dial(address, timeout_s=5)
        await other.until(lambda: other.links)
        yield link, other.links[0]
    finally:
        await ours.close()
        await theirs.close()


def content(path: Path, nbytes: int) -> int:
    path.write_bytes(Random(3).randbytes(nbytes))
    return os.open(path, os.O_RDONLY)


def ask(link: Link, request_id: int, first: int, count: int, *, bulk: bool = False) -> None:
    link.expect_chunks(request_id, [(i, CHUNK) for i in range(first, first + count)])
    link.send(fr.Request(RequestId(request_id), DIGEST, MAP_ID, first, count, bulk))


async def test_64_mib_both_ways_at_once_and_a_cancel_in_the_middle(tmp_path: Path) -> None:
    """Reading never pauses for sending, and a cancel overtakes nearly everything."""
    fd = content(tmp_path / "blob", 64 * MIB)
    one, two = End(fd), End(fd)
    async with linked(one, two) as links:
        for link in links:
            for run in range(4):
                ask(link, run + 1, run * 64, 64)
        await one.until(lambda: links[0].payload_received > 8 * MIB)
        at_cancel = links[0].payload_received
        links[0].forget(4)
        links[0].send(fr.Cancel(RequestId(4)))
        await two.until(lambda: 4 in two.done)
        await one.until(lambda: len(one.chunks) == 192)
        await two.until(lambda: len(two.chunks) == 256)

    assert at_cancel < 48 * MIB
    assert two.done[4] < 16 * MIB, "the cancel came before the run began or ended"
    data = os.pread(fd, 64 * MIB, 0)
    assert all(body == data[i * CHUNK : (i + 1) * CHUNK] for (_, i), body in one.chunks.items())
    assert all(body == data[i * CHUNK : (i + 1) * CHUNK] for (_, i), body in two.chunks.items())
    os.close(fd)


async def test_what_arrives_after_a_cancel_of_the_running_run_is_bounded(tmp_path: Path) -> None:
    fd = content(tmp_path / "blob", 16 * MIB)
    one, two = End(fd), End(fd)
    async with linked(one, two) as (ours, _):
        ask(ours, 1, 0, 64)
        await one.until(lambda: ours.payload_received > MIB)
        at_cancel = ours.payload_received
        ours.forget(1)
        ours.send(fr.Cancel(RequestId(1)))
        await two.until(lambda: 1 in two.done)

        assert two.done[1] <= at_cancel + AFTER_CANCEL_BYTES_MAX
        assert two.done[1] < 16 * MIB
        assert not ours.closed  # late data was dropped, not punished
    os.close(fd)


async def test_control_frames_pass_between_the_slices_of_a_run(tmp_path: Path) -> None:
    fd = content(tmp_path / "blob", 16 * MIB)
    one, two = End(fd), End(fd)
    async with linked(one, two) as (ours, theirs):
        ask(ours, 1, 0, 64)
        await one.until(lambda: ours.payload_received > 0)
        theirs.send(fr.Interest(DIGEST))
        await one.until(lambda: fr.Interest(DIGEST) in one.frames)

        assert ours.payload_received < 16 * MIB
        await one.until(lambda: len(one.chunks) == 64)
    os.close(fd)


@pytest.mark.parametrize("body", [b"", b"a manifest", bytes(4 * MIB)])
async def test_a_small_body_arrives_whole(body: bytes) -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, theirs):
        ours.expect_small(9)
        theirs.send_small(9, "text/plain", body, lambda: None)
        await one.until(lambda: 9 in one.smalls)

    assert one.smalls[9] == ("text/plain", body)


async def test_a_small_body_counts_as_unsent_until_the_other_end_took_it() -> None:
    one, two = End(), End()
    over: list[str] = []
    async with linked(one, two) as (ours, theirs):
        ours.expect_small(1)
        theirs.send_small(1, "", bytes(1 * MIB), lambda: over.append("read"))
        assert (theirs.unsent_small_bytes, over) == (MIB, [])
        await one.until(lambda: 1 in one.smalls)
        await two.until(lambda: over == ["read"])
        assert theirs.unsent_small_bytes == 0

        theirs.send_small(2, "", b"", lambda: over.append("empty"))
        theirs.send_small(3, "", bytes(MIB), lambda: over.append("closed"))
        theirs.close("away")
        theirs.send_small(4, "", b"late", lambda: over.append("late"))

    assert over == ["read", "empty", "closed", "late"]
    assert theirs.unsent_small_bytes == 0


async def test_a_wrong_secret_is_refused() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a", b"another secret here"), transport_of(two, "b")
    address = await theirs.listen("127.0.0.1", 0)

    with pytest.raises(PeerFault, match="secret"):
        await ours.dial(address, timeout_s=5)

    await ours.close()
    await theirs.close()
    assert not one.links
    assert not two.links


async def slow_dial(address: Address) -> socket.socket:
    """From another address than all others, and no further than three bytes."""
    sock, loop = socket.socket(), asyncio.get_running_loop()
    sock.setblocking(False)
    sock.bind(("127.0.0.9", 0))
    await loop.sock_connect(sock, (address.host, address.port))
    await loop.sock_sendall(sock, MAGIC[:3])
    return sock


async def test_slow_handshakes_of_one_address_keep_nobody_out() -> None:
    """256 places held with 3 bytes each: 1 of 20 honest dials used to get through."""
    one, two = End(), End()
    theirs = transport_of(two, "b", limits=ExchangeLimits(handshakes_max=4))
    ours = transport_of(one, "a")
    address = await theirs.listen("127.0.0.1", 0)
    slow = [await slow_dial(address) for _ in range(12)]

    for count in range(1, 4):  # the place that was free again is taken by a slow one
        link = await ours.dial(address, timeout_s=5)
        await two.until(lambda count=count: len(two.links) == count)
        link.close("again")
        await two.until(lambda: two.links[-1].closed)
        slow.append(await slow_dial(address))

    for sock in slow:
        sock.close()
    await ours.close()
    await theirs.close()
    assert len(two.links) == 3


async def test_a_host_does_not_link_to_itself() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a"), transport_of(two, "a")
    address = await theirs.listen("127.0.0.1", 0)

    with pytest.raises(PeerFault, match="itself"):
        await ours.dial(address, timeout_s=5)

    await ours.close()
    await theirs.close()


async def test_garbage_after_the_handshake_closes_the_link() -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, _):
        ours._sock.send(b"\xff" * 64)
        await two.until(lambda: two.downs)

    assert two.downs[0].startswith("protocol")


async def test_data_that_nobody_asked_for_closes_the_link() -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, _):
        ours.send(fr.Data(RequestId(5), 0, 0, memoryview(b"surprise")))
        await two.until(lambda: two.downs)

    assert "nobody asked" in two.downs[0]


async def test_data_out_of_order_closes_the_link() -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, theirs):
        theirs.expect_chunks(5, [(0, 100)])
        ours.send(fr.Data(RequestId(5), 0, 50, memoryview(b"x" * 50)))
        await two.until(lambda: two.downs)

    assert "wrong offset" in two.downs[0]


async def test_a_bug_in_the_handler_costs_that_link_only() -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, _):
        ours.send(fr.Retract(DIGEST))
        await two.until(lambda: two.downs)

    assert two.downs[0] == "internal error"


async def test_a_peer_that_does_not_read_loses_the_link() -> None:
    one, two = End(), End()
    async with linked(one, two) as (ours, theirs):
        theirs._loop.remove_reader(theirs._sock)
        record = fr.MapRecord(bytes(4096))
        for _ in range(4 * CONTROL_BYTES_MAX // 4096):
            ours.send(record)
        assert ours.closed


async def test_more_runs_than_allowed_are_refused_as_busy(tmp_path: Path) -> None:
    fd = content(tmp_path / "blob", 16 * MIB)
    one, two = End(fd), End(fd)
    async with linked(one, two) as (ours, _):
        for run in range(RUNS_MAX + 8):
            ask(ours, run + 1, 0, 64)
        await one.until(lambda: any(isinstance(f, fr.Refuse) for f in one.frames))

    refused = [f for f in one.frames if isinstance(f, fr.Refuse)]
    assert {f.reason for f in refused} == {fr.RefuseReason.BUSY}
    os.close(fd)


async def test_crossed_dials_leave_one_link() -> None:
    one, two = End(), End()
    first, second = transport_of(one, "a"), transport_of(two, "b")
    addresses = [await t.listen("127.0.0.1", 0) for t in (first, second)]

    await asyncio.gather(
        first.dial(addresses[1], timeout_s=5), second.dial(addresses[0], timeout_s=5)
    )
    await one.until(lambda: sum(not k.closed for k in one.links) == 1)
    await two.until(lambda: sum(not k.closed for k in two.links) == 1)
    ours = next(k for k in one.links if not k.closed)
    ours.send(fr.Interest(DIGEST))
    await two.until(lambda: fr.Interest(DIGEST) in two.frames)

    assert ours.dialled  # the lower host id's dial wins on both ends
    await first.close()
    await second.close()


@pytest.mark.parametrize(
    ("existing_dialled", "new_dialled", "kept"),
    [(True, True, False), (False, False, False), (True, False, True), (False, True, False)],
)
def test_which_of_two_links_survives(existing_dialled: bool, new_dialled: bool, kept: bool) -> None:
    low, high = HostId("0" * 32), HostId("f" * 32)

    at_low = keep_existing(low, high, existing_dialled=existing_dialled, new_dialled=new_dialled)
    at_high = keep_existing(
        high, low, existing_dialled=not existing_dialled, new_dialled=not new_dialled
    )

    assert at_low == at_high == kept


async def test_more_links_than_allowed_are_not_accepted() -> None:
    one, two, three = End(), End(), End()
    listening = transport_of(one, "a", limits=ExchangeLimits(links_max=1))
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(two, "b"), transport_of(three, "c")]
    await dialling[0].dial(address, timeout_s=5)
    await one.until(lambda: one.links)

    with pytest.raises(LinkRefused, match="full"):
        await dialling[1].dial(address, timeout_s=5)
    assert listening.refused == {"full": 1}
    again = await dialling[0].dial(address, timeout_s=5)  # its old link makes way
    await one.until(lambda: len(one.links) == 2)

    assert not again.closed
    for transport in (listening, *dialling):
        await transport.close()
    assert three.links == []


async def test_of_two_hosts_with_one_id_the_second_is_refused_and_told() -> None:
    proxy, one, two = End(), End(), End()
    told: list[str] = []
    listening = transport_of(proxy, "a")
    address = await listening.listen("127.0.0.1", 0)
    watchers = Watchers(id_in_use=told.append)
    first = transport_of(one, "b", instance=b"first", watchers=watchers)
    second = transport_of(two, "b", instance=b"second")
    try:
        for transport in (first, first, second, second):  # whoever merely dials again is let in
            await transport.dial(address, timeout_s=5)
        await proxy.until(lambda: len(proxy.links) == 4)
        assert told == []

        with pytest.raises(LinkRefused, match="host_id_in_use"):
            await first.dial(address, timeout_s=5)

        assert told == [f"the host at {address} has a link with it"]
        assert not proxy.links[-1].closed
        assert listening.refused == {"host_id_in_use": 1}
    finally:
        for transport in (listening, first, second):
            await transport.close()


async def test_a_dialled_host_whose_namesake_has_a_link_is_left() -> None:
    dialler, one, two = End(), End(), End()
    dialling = transport_of(dialler, "a")
    first = transport_of(one, "b", instance=b"first")
    second = transport_of(two, "b", instance=b"second")
    addresses = [await transport.listen("127.0.0.1", 0) for transport in (first, second)]
    try:
        for address in addresses:
            last = await dialling.dial(address, timeout_s=5)

        with pytest.raises(PeerFault, match="another host of the same id"):
            await dialling.dial(addresses[0], timeout_s=5)
        assert not last.closed
    finally:
        for transport in (dialling, first, second):
            await transport.close()


async def test_dropped_links_are_down_at_both_ends_and_may_be_dialled_anew() -> None:
    one, two = End(), End()
    ours, theirs = transport_of(one, "a"), transport_of(two, "b")
    address = await theirs.listen("127.0.0.1", 0)
    try:
        await ours.dial(address, timeout_s=5)
        await two.until(lambda: two.links)

        ours.drop_links("a new id")
        await one.until(lambda: one.downs)
        await two.until(lambda: two.downs)

        assert one.downs == ["a new id"]
        assert not (await ours.dial(address, timeout_s=5)).closed
    finally:
        await ours.close()
        await theirs.close()


async def test_dials_at_once_do_not_get_past_the_limit() -> None:
    one, others = End(), [End() for _ in range(8)]
    listening = transport_of(one, "a", limits=ExchangeLimits(links_max=3))
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(end, name) for end, name in zip(others, "bcdef012", strict=True)]

    dials = (transport.dial(address, timeout_s=5) for transport in dialling)
    got = await asyncio.gather(*dials, return_exceptions=True)

    assert sum(isinstance(each, Link) for each in got) == 3
    assert sum(isinstance(each, LinkRefused) for each in got) == 5
    for transport in (listening, *dialling):
        await transport.close()


async def test_a_node_that_drains_refuses_new_links_and_keeps_the_others() -> None:
    one, two, three = End(), End(), End()
    listening = transport_of(one, "a")
    address = await listening.listen("127.0.0.1", 0)
    dialling = [transport_of(two, "b"), transport_of(three, "c")]
    kept = await dialling[0].dial(address, timeout_s=5)

    listening.draining = True
    with pytest.raises(LinkRefused, match="draining"):
        await dialling[1].dial(address, timeout_s=5)

    assert not kept.closed
    for transport in (listening, *dialling):
        await transport.close()


async def test_a_stranger_who_says_nothing_holds_no_link() -> None:
    one = End()
    listening = transport_of(one, "a")
    address = await listening.listen("127.0.0.1", 0)
    with socket.create_connection((address.host, address.port)) as stranger:
        stranger.send(b"GET / HTTP/1.1\r\n\r\n")
        stranger.settimeout(5)
        with contextlib.suppress(ConnectionResetError):  # closed with bytes unread
            assert await asyncio.to_thread(stranger.recv, 100) == b""

    await listening.close()
    assert one.links == []


async def test_dialling_nobody_raises() -> None:
    transport = transport_of(End(), "a")

    with pytest.raises(OSError, match="Connect call failed"):
        await transport.dial(Address("127.0.0.1", 1), timeout_s=5)

    await transport.close()


async def test_the_upload_budget_is_shared_by_all_links(tmp_path: Path) -> None:
    """Control frames pass while payload waits for its turn."""
    rate, size = 8 * MIB, 4 * MIB
    fd = content(tmp_path / "blob", size)
    source, readers = End(fd), [End(fd), End(fd)]
    limits = ExchangeLimits(upload_bytes_per_s=rate)
    transports = [transport_of(source, "a", limits=limits)]
    transports += [transport_of(reader, name) for reader, name in zip(readers, "bc", strict=True)]
    loop = asyncio.get_running_loop()
    try:
        address = await transports[0].listen("127.0.0.1", 0)
        links = [await transport.dial(address, timeout_s=5) for transport in transports[1:]]
        began_s = loop.time()
        chunks = size // CHUNK
        for link in links:
            ask(link, 1, 0, chunks)
        for reader in readers:
            await reader.until(lambda reader=reader: len(reader.chunks) == chunks)
        took_s = loop.time() - began_s
    finally:
        for transport in transports:
            await transport.close()
        os.close(fd)

    assert took_s >= 0.95 * (len(readers) * size - rate / 50) / rate


async def test_an_urgent_run_is_whole_before_the_bulk_that_was_asked_first(tmp_path: Path) -> None:
    fd = content(tmp_path / "blob", 64 * MIB)
    one, two = End(fd), End(fd)
    async with linked(one, two) as (ours, _):
        for run in range(1, 4):
            ask(ours, run, (run - 1) * 64, 64, bulk=True)
        await one.until(lambda: ours.payload_received > MIB)
        ask(ours, 9, 192, 64)
        await one.until(lambda: sum(run == 9 for run, _ in one.chunks) == 64)

        bulk_chunks = len(one.chunks) - 64
        assert bulk_chunks < 128, "bulk was held back"
        await one.until(lambda: len(one.chunks) == 256)
    os.close(fd)
