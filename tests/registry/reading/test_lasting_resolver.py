"""A registry's last good address stands in while its name does not resolve."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp.abc import ResolveResult

from p2pdist.registry.reading import lasting_resolver
from p2pdist.registry.reading.lasting_resolver import LastingResolver
from tests.faults.records import recorded
from tests.registry.reading.upstream_parts import FakeDns

pytestmark = pytest.mark.faults

HOST = "registry.test"


class SilentDns(FakeDns):
    """Answers until it falls silent."""

    silent = False

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if self.silent:
            await asyncio.Event().wait()
        return found


@pytest.fixture
async def dns() -> SilentDns:
    return SilentDns({HOST: "192.0.2.1"})


@pytest.fixture
async def resolver(dns: SilentDns) -> AsyncIterator[LastingResolver]:
    resolver = LastingResolver(dns)
    yield resolver
    await resolver.close()


async def addresses(resolver: LastingResolver, host: str = HOST) -> list[str]:
    found = await resolver.resolve(host, 443, socket.AF_UNSPEC)
    return [result["host"] for result in found]


async def test_the_last_good_address_is_given_while_the_name_is_gone(
    dns: SilentDns, resolver: LastingResolver, caplog: pytest.LogCaptureFixture
) -> None:
    with recorded(34, "DNS away", "name gone") as record, caplog.at_level("INFO"):
        assert await addresses(resolver) == ["192.0.2.1"]
        dns.addresses.clear()

        assert [await addresses(resolver) for _ in range(3)] == [["192.0.2.1"]] * 3

        assert resolver.kept_answers_total == 3
        assert [line.message for line in caplog.records].count("upstream.name_unresolved") == 1
        record.outcome = "the last good address is used, said once and counted"


async def test_a_name_that_resolves_is_never_answered_from_memory(
    dns: SilentDns, resolver: LastingResolver
) -> None:
    await addresses(resolver)
    dns.addresses[HOST] = "192.0.2.2"

    assert await addresses(resolver) == ["192.0.2.2"]
    assert resolver.kept_answers_total == 0


async def test_a_name_that_never_resolved_fails(resolver: LastingResolver) -> None:
    with pytest.raises(OSError, match="no such host"):
        await addresses(resolver, "other.test")


async def test_a_silent_resolver_is_not_waited_for_and_asked_once_at_a_time(
    dns: SilentDns, resolver: LastingResolver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(34, "DNS away", "resolver silent") as record:
        monkeypatch.setattr(lasting_resolver, "DNS_PATIENCE_S", 0.01)
        await addresses(resolver)
        dns.silent = True

        assert [await addresses(resolver) for _ in range(3)] == [["192.0.2.1"]] * 3
        assert len(dns.asked) == 2
        record.outcome = "the last good address is used; one question is out"


async def test_a_host_moved_when_it_has_other_addresses_now(
    dns: SilentDns, resolver: LastingResolver
) -> None:
    await addresses(resolver)
    assert not await resolver.moved(HOST, 443)
    dns.addresses.clear()
    assert not await resolver.moved(HOST, 443)
    dns.addresses[HOST] = "192.0.2.2"
    assert await resolver.moved(HOST, 443)
