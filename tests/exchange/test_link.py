"""What two ends of a link send each other: runs, cancels, small bodies, frames that break it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from p2pdist.exchange import frames as fr
from p2pdist.exchange.frames import SLICE_BYTES_MAX
from p2pdist.exchange.link import CONTROL_BYTES_MAX, RUNS_MAX
from p2pdist.exchange.securing import LinkIdentity
from p2pdist.exchange.transport import ExchangeLimits
from p2pdist.model.ids import RequestId
from tests.exchange import transport_parts
from tests.exchange.transport_parts import (
    CHUNK,
    DIGEST,
    MIB,
    End,
    ask,
    content,
    linked,
    transport_of,
)
from tests.process.identities import TestCa


@pytest.fixture(scope="module")
def sealed_ends(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], LinkIdentity]:
    return transport_parts.identities(TestCa(tmp_path_factory.mktemp("ca")))


@pytest.fixture(autouse=True, params=["in clear", "sealed"])
def kind_of_link(
    request: pytest.FixtureRequest,
    sealed_ends: Callable[[str], LinkIdentity],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of this holds for both."""
    if request.param == "sealed":
        monkeypatch.setattr(transport_parts, "default_identity", sealed_ends)


# What may still arrive after a cancel: what the kernel holds at both ends (NOTSENT_LOWAT keeps it
# small at the sender) and the slice on its way. Loopback buffers grow to a few MiB.
AFTER_CANCEL_BYTES_MAX = 8 * MIB


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
            await reader.has_chunks(chunks)
        took_s = loop.time() - began_s
    finally:
        for transport in transports:
            await transport.close()
        os.close(fd)

    assert took_s >= 0.95 * (len(readers) * size - rate / 50) / rate


async def test_who_asks_and_takes_back_again_and_again_has_one_place_in_the_line(
    tmp_path: Path,
) -> None:
    fd = content(tmp_path / "blob", MIB)
    source, reader = End(fd), End()
    transport = transport_of(source, "a", limits=ExchangeLimits(upload_bytes_per_s=1024))
    dialling = transport_of(reader, "b")
    upload = transport.upload
    assert upload is not None
    try:
        link = await dialling.dial(await transport.listen("127.0.0.1", 0), timeout_s=5)
        while upload.ask(SLICE_BYTES_MAX, lambda: None) is None:
            pass  # what may go at once
        for request in range(1, 51):
            ask(link, request, 0, 1)
            async with asyncio.timeout(20):
                # A turn is asked for in a callback of the socket's, which tells nobody.
                while not source.links or source.links[0]._turn is None:  # noqa: ASYNC110
                    await asyncio.sleep(0)
            link.forget(request)
            link.send(fr.Cancel(RequestId(request)))
            await source.has_done(request)
        waiting = len(upload._line)
    finally:
        await dialling.close()
        await transport.close()
        os.close(fd)

    assert waiting == 2, "the one before it, and the link's"


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
