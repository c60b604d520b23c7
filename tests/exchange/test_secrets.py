"""Links while one cluster secret takes another one's place, and once the old one is gone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from p2pdist.errors import WrongSecret
from p2pdist.exchange.transport import UNBELIEVED, ExchangeLimits, ExchangeTransport
from p2pdist.model.cluster_secrets import ClusterSecrets
from p2pdist.model.handshake import Hello, Refusal
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from tests.exchange.transport_parts import End
from tests.fakes.secrets import only

OLD, NEW = b"the old secret of the cluster", b"the new secret of the cluster"


class Host:
    """One end, whose secrets change."""

    def __init__(self, name: str, *believed: bytes) -> None:
        self.end, self.believed = End(), only(*believed)
        member = Member(HostId(name * 32), Role.PEER, Place("dc1"))
        self.transport = ExchangeTransport(
            self.end, secret=self.secret, me=lambda: member, limits=ExchangeLimits()
        )

    def secret(self) -> ClusterSecrets:
        return self.believed

    async def now(self, *believed: bytes) -> None:
        self.believed = only(*believed)
        await self.transport.cut_unbelieved()


@asynccontextmanager
async def listening(*hosts: Host) -> AsyncIterator[list[Address]]:
    try:
        yield [await host.transport.listen("127.0.0.1", 0) for host in hosts]
    finally:
        for host in hosts:
            await host.transport.close()


async def test_a_link_stands_until_the_secret_it_was_made_under_is_gone() -> None:
    one, two = Host("a", OLD), Host("b", OLD)
    async with listening(one, two) as (_, address):
        await one.transport.dial(address, timeout_s=5)
        await two.end.has_links(1)
        for host in (one, two):
            await host.now(OLD, NEW)
        for host in (one, two):
            await host.now(NEW, OLD)
        assert (one.transport.links, two.transport.links) == (1, 1)

        await one.now(NEW)

        await one.end.until(lambda: one.end.downs)
        await two.end.until(lambda: two.end.downs)
        assert one.end.downs == [UNBELIEVED]
        await one.transport.dial(address, timeout_s=5)  # who has not yet dropped it is a friend
        await two.end.has_links(2)
        await two.now(NEW)
        assert (one.transport.links, two.transport.links) == (1, 1)


@pytest.mark.parametrize("dialler", [True, False])
async def test_a_handshake_under_a_secret_that_goes_meanwhile_makes_no_link(dialler: bool) -> None:
    one, two = Host("a", OLD, NEW), Host("b", OLD)
    slow = one if dialler else two

    def meanwhile(hello: Hello) -> Refusal | None:
        slow.believed = only(NEW)
        return None

    two.transport._refuse = meanwhile  # type: ignore[method-assign]  # within the handshake
    async with listening(two) as (address,):
        if dialler:
            with pytest.raises(WrongSecret):
                await one.transport.dial(address, timeout_s=5)
        else:
            link = await one.transport.dial(address, timeout_s=5)
            await one.end.until(lambda: link.closed)
            assert not two.end.links
        assert slow.transport.links == 0
    await one.transport.close()
