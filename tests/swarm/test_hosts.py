"""Hosts whose network comes late or changes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from p2pdist.model.health import Reason
from p2pdist.model.members import Address
from p2pdist.peer.daemon import running_peer
from p2pdist.runtime import own_addresses
from tests.fakes.cluster import Lab
from tests.tracker.servers import wait_until


async def test_a_host_is_named_at_the_address_that_it_has_now(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had none when it started, and gets another one later: no restart is needed."""
    ours: list[str] = []

    def routes(targets: Iterable[Any]) -> list[str]:
        return ours[-1:]

    monkeypatch.setattr(own_addresses, "_routes", routes)
    monkeypatch.setattr(own_addresses, "_is_ours", lambda host: host in {"0.0.0.0", *ours[-1:]})
    monkeypatch.setattr(own_addresses, "LOOK_EVERY_S", 0.01)
    tracker = await lab.tracker()
    settings = lab.settings("a")
    anywhere = replace(settings.peer, exchange_listen=Address("0.0.0.0", 0))
    async with running_peer(replace(settings, peer=anywhere)) as peer:
        node, me = peer.running.node, peer.running.me

        def named(host: str) -> bool:
            known = tracker.server.core.hosts.get(me().host_id)
            address = Address(host, peer.running.exchange_address.port)
            return known is not None and known.member.addresses == (address,)

        await wait_until(lambda: peer.running.tracker.connected)
        assert Reason.UNREACHABLE in node.health.names()

        for address in ("127.0.0.7", "127.0.0.8"):
            ours.append(address)
            await wait_until(lambda: named(ours[-1]))
            assert Reason.UNREACHABLE not in node.health.names()
