"""The fault proxy does what its toxics say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from p2pdist.model.members import Address
from tests.faults.fault_proxy import (
    Bandwidth,
    Corrupt,
    FaultProxy,
    Freeze,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    Timeout,
)

BODY = bytes(range(256)) * 2000


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    """In front of a server that sends BODY and closes."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(BODY)
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    target = Address(*server.sockets[0].getsockname()[:2])
    async with FaultProxy(target) as running:
        yield running
    server.close()
    await server.wait_closed()


async def read(proxy: FaultProxy, timeout_s: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection(proxy.address.host, proxy.address.port)
    try:
        async with asyncio.timeout(timeout_s):
            return await reader.read()
    finally:
        writer.close()


async def test_without_toxics_it_passes_everything_on(proxy: FaultProxy) -> None:
    assert await read(proxy) == BODY
    assert proxy.bytes_down == len(BODY)


@pytest.mark.parametrize("toxic", [Slicer(1000), Latency(0.01, 0.005)])
async def test_slices_and_delays_change_no_byte(proxy: FaultProxy, toxic: Slicer | Latency) -> None:
    proxy.down.append(toxic)

    assert await read(proxy) == BODY


async def test_latency_delays_the_first_byte(proxy: FaultProxy) -> None:
    proxy.down.append(Latency(0.2))
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    await read(proxy)

    assert loop.time() - began_s >= 0.2


async def test_bandwidth_is_a_rate(proxy: FaultProxy) -> None:
    proxy.down.append(Bandwidth(len(BODY) / 0.3))
    loop = asyncio.get_running_loop()
    began_s = loop.time()

    assert await read(proxy) == BODY
    assert loop.time() - began_s >= 0.29


async def test_limit_data_ends_by_fin(proxy: FaultProxy) -> None:
    proxy.down.append(LimitData(100_000))

    assert await read(proxy) == BODY[:100_000]


async def test_a_freeze_keeps_the_connection_open(proxy: FaultProxy) -> None:
    proxy.down.append(Freeze(100_000))

    with pytest.raises(TimeoutError):
        await read(proxy, timeout_s=0.3)
    assert proxy.bytes_down == 100_000


async def test_a_timeout_lets_nothing_through(proxy: FaultProxy) -> None:
    proxy.down.append(Timeout(close_s=0.1))

    assert await read(proxy) == b""


async def test_reset_peer_resets(proxy: FaultProxy) -> None:
    proxy.down.append(ResetPeer())

    with pytest.raises(ConnectionResetError):
        await read(proxy)


async def test_corruption_flips_bits_and_keeps_the_length(proxy: FaultProxy) -> None:
    proxy.down.append(Corrupt(1.0))

    spoilt = await read(proxy)

    assert len(spoilt) == len(BODY)
    assert spoilt != BODY


async def test_refused_connections_end_at_once(proxy: FaultProxy) -> None:
    proxy.refuse = True

    assert await read(proxy) == b""
