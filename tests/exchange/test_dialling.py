"""Names with several addresses, of which some are dead; on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvloop

from p2pdist.exchange.dialling import connected
from p2pdist.model.members import Address
from tests.faults.records import recorded

DEADLINE_S = 10
Names = Callable[..., None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def full() -> Iterator[Address]:
    """An address that does not answer: its backlog is full, so what is dialled there waits."""
    with socket.socket() as server, socket.socket() as first:
        server.bind(("127.0.0.2", 0))
        server.listen(0)
        first.connect(server.getsockname())
        yield Address(*server.getsockname())


def info(address: Address) -> tuple[Any, ...]:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address.host, address.port)


async def dial(name: str, *answers: list[Address]) -> list[tuple[str, int]]:
    """Dial `name` once for each of the answers that the resolver gives; return who was reached."""
    loop, script, reached = asyncio.get_running_loop(), iter(answers), []

    class Resolving:
        """A loop whose resolver is ours."""

        def __getattr__(self, attribute: str) -> Any:
            return getattr(loop, attribute)

        async def getaddrinfo(self, host: str, *_: object, **__: object) -> list[tuple[Any, ...]]:
            assert host == name
            return [info(address) for address in next(script)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("p2pdist.exchange.dialling.asyncio.get_running_loop", Resolving)
        for _ in answers:
            async with asyncio.timeout(DEADLINE_S):
                with await connected(Address(name, 1)) as sock:
                    assert sock.gettimeout() == 0
                    reached.append(sock.getpeername())
    return reached


@pytest.mark.faults
def test_the_address_that_answers_is_taken_whichever_it_is(
    runner: asyncio.Runner, server: socket.socket, full: Address
) -> None:
    live = Address(*server.getsockname())
    refused = Address("127.0.0.3", live.port)
    no_ipv6 = Address("::1", live.port)

    with recorded(63, "name whose first addresses are dead") as record:
        for dead in ([refused], [no_ipv6], [full], [no_ipv6, refused, full]):
            assert runner.run(dial("proxy.test", [*dead, live])) == [server.getsockname()]
        record.outcome = "the live one is reached past refused, silent and unreachable ones"


def test_a_name_is_resolved_at_every_dial(runner: asyncio.Runner, server: socket.socket) -> None:
    with socket.create_server(("127.0.0.4", 0)) as moved:
        answers = [[Address(*server.getsockname())], [Address(*moved.getsockname())]]

        assert runner.run(dial("tracker.test", *answers)) == [
            server.getsockname(),
            moved.getsockname(),
        ]


@pytest.mark.parametrize("name", ["a..b", "a\0b", "x" * 64, "no.such.host.invalid", "127.0.0.3"])
def test_what_cannot_be_reached_is_an_os_error(runner: asyncio.Runner, name: str) -> None:
    """Names come from others as well: whatever text they are."""
    with pytest.raises(OSError, match=r".+"):
        runner.run(connected(Address(name, 1)))
