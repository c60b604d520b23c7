"""Certificates that renew themselves over the control connection, and what is refused there."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from random import Random

import pytest

from p2pdist.control.client import TrackerClient
from p2pdist.control.renewing import Renewing
from p2pdist.errors import ConfigError
from p2pdist.model.control import Renew, Renewed, Welcome
from p2pdist.model.control_wire import FEATURES, Kind
from p2pdist.process import clock
from p2pdist.process.certificates import DAY_S
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder, identity_status
from p2pdist.process.requests import new_request
from p2pdist.process.revoked_hosts import judge, sign_revocation
from p2pdist.tracker.core.renewals import RenewalDesk
from p2pdist.tracker.renewing import Renewer
from p2pdist.tracker.server import TrackerServer
from tests.process.identities import TestCa
from tests.tracker.servers import TRACKER, dialled, running, tracker_server, wait_until
from tests.tracker.test_identity import ME, dialling, server_of

Ask = Callable[[bytes], Awaitable[Renewed | None]]


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def held(ca: TestCa, *, begun_days: float = 25.0) -> IdentityHolder:
    return IdentityHolder(ca.identity("peer", ME.host_id, begun_days=begun_days))


def renewing_tracker(ca: TestCa) -> tuple[TrackerServer, Renewer]:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    renewer = Renewer(ca.keep(), own)
    return server_of(own, renewer=renewer), renewer


def renewing(holder: IdentityHolder, client: TrackerClient) -> Renewing:
    ask = partial(client.renew, timeout_s=5.0)
    return Renewing(holder, ask, lambda: client.renews, Random(1), client.show_certificate)


async def test_a_host_has_its_certificate_renewed_over_its_connection(ca: TestCa) -> None:
    server, renewer = renewing_tracker(ca)
    holder = held(ca)
    old, old_key = holder.current, (holder.current.directory / "key.pem").read_bytes()
    async with dialling(server, holder) as (client, health):
        await wait_until(lambda: client.renews)

        await renewing(holder, client).look()

        assert holder.renewal.startswith("by itself, ")
        assert holder.current.identity == old.identity
        life_s = holder.current.says.ends_s - old.says.ends_s
        assert life_s == pytest.approx(25 * DAY_S, abs=60)
        assert (old.directory / "key.pem").read_bytes() != old_key
        assert (holder.taken_total, holder.renewals["done"], renewer.signed_total) == (1, 1, 1)
        assert client.connected, "what stands goes on"
        assert health.names() == []
    async with dialling(server_of(ca.identity("tracker", TRACKER.host_id)), holder) as (client, _):
        await wait_until(lambda: client.connected)
        assert not client.renews, "this one has no CA"


async def test_the_next_one_is_asked_for_with_the_certificate_of_today(ca: TestCa) -> None:
    """On a connection that stands for longer than the certificate that it was begun with."""
    server, renewer = renewing_tracker(ca)
    holder = held(ca)
    async with dialling(server, holder) as (client, _):
        await wait_until(lambda: client.renews)
        own = renewing(holder, client)
        await own.look()
        renewer._desk = RenewalDesk(time.monotonic())
        for each in (holder, renewer._own):
            each.unix_s = lambda: clock.unix_s() + 24 * DAY_S
        second = holder.current

        await own.look()
        assert not client.renews, "it comes back with the one of today"
        await wait_until(lambda: client.renews)
        await own.look()  # which waits, so that not all hosts come at once
        holder.unix_s = lambda: clock.unix_s() + 24.5 * DAY_S
        await own.look()

        assert renewer.signed_total == 2
        assert holder.current is not second


async def test_it_is_not_asked_before_it_is_time(ca: TestCa) -> None:
    server, renewer = renewing_tracker(ca)
    holder = held(ca, begun_days=10)
    async with dialling(server, holder) as (client, _):
        await wait_until(lambda: client.renews)
        await renewing(holder, client).look()
        assert holder.renewal.startswith("by itself, ")
        assert renewer.signed_total == renewer.refused_total == 0


async def test_a_revoked_host_gets_no_next_one(ca: TestCa) -> None:
    """Its connection may stand for the moment in which the tracker finds out."""
    server, renewer = renewing_tracker(ca)
    revoked = renewer._own.current.revoked
    record = sign_revocation(ca.ca, [ME.host_id, TRACKER.host_id], 1e9)
    async with dialling(server, held(ca)) as (client, _):
        await wait_until(lambda: client.renews)
        revoked.take(judge([record], renewer._own.current.cas))

        refused = await client.renew(new_request().der, timeout_s=5.0)

        assert refused is not None
        assert f"host {ME.host_id} was revoked" in refused.reason
        own = await renewer.own(new_request().der)
        assert own is not None
        assert f"host {TRACKER.host_id} was revoked" in own.reason
        assert renewer.signed_total == 0


async def test_a_refusal_is_told_and_tried_again_later(ca: TestCa) -> None:
    server, renewer = renewing_tracker(ca)
    holder = held(ca)
    async with dialling(server, holder) as (client, _):
        await wait_until(lambda: client.renews)
        (renewer._directory / "ca.key").unlink()
        own = renewing(holder, client)

        await own.look()
        await own.look()

        assert holder.renewal.startswith("the tracker refused: the tracker has no CA to sign with")
        assert "next try" in identity_status(holder)["identity"]["renewal"]
        assert (renewer.refused_total, holder.renewals["failed"]) == (1, 1)


async def test_without_a_tracker_that_renews_it_is_said_who_has_to(ca: TestCa) -> None:
    holder = held(ca)
    async with dialling(server_of(ca.identity("tracker", TRACKER.host_id)), holder) as (client, _):
        await wait_until(lambda: client.connected)
        await renewing(holder, client).look()
        assert "once a tracker that renews is connected; without one by hand" in holder.renewal


async def test_in_clear_nothing_is_renewed(ca: TestCa) -> None:
    server, renewer = renewing_tracker(ca)
    async with running(server) as url, dialled(url, ME, features=FEATURES) as host:
        await host.send(Renew(7, new_request().der))
        answer = await host.expect(Renewed)
        assert (answer.seq, answer.certificate) == (7, b"")
        assert "without TLS" in answer.reason
        assert renewer.signed_total == 0


async def test_a_tracker_that_offers_nothing_ends_who_asks(ca: TestCa) -> None:
    async with running(tracker_server()) as url, dialled(url, ME) as host:
        await host.send(Renew(7, b""))
        await host.expect(Welcome)
        kind, why = await host.receive_frame()
        assert kind == Kind.CLOSE
        assert b"not offered" in why


@pytest.mark.parametrize("request_der", [b"", b"\x30\x03\x02\x01\x01", os.urandom(1024)])
async def test_what_is_no_request_is_refused_and_costs_no_turn(
    ca: TestCa, request_der: bytes
) -> None:
    server, renewer = renewing_tracker(ca)
    holder = held(ca)
    async with dialling(server, holder) as (client, _):
        await wait_until(lambda: client.renews)
        refused = await client.renew(request_der, timeout_s=5.0)
        assert refused is not None
        assert "malformed request" in refused.reason
        await renewing(holder, client).look()
        assert renewer.signed_total == 1
        again = await client.renew(new_request().der, timeout_s=5.0)
        assert again is not None
        assert "just now" in again.reason


@pytest.mark.parametrize("features", [0, 1])
async def test_a_host_of_before_is_served_as_ever(ca: TestCa, features: int) -> None:
    server, _ = renewing_tracker(ca)
    async with running(server) as url, dialled(url, ME, features=features):
        await wait_until(lambda: server.core.hosts_connected == 1)


# --- the tracker's own ----------------------------------------------------------------------------


async def test_a_tracker_renews_its_own(ca: TestCa) -> None:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id, begun_days=25))
    renewer = Renewer(ca.keep(), own)
    async with running(server_of(own, renewer=renewer)):
        await wait_until(lambda: own.taken_total == 1)
        assert own.current.says.renew_from_s > own.unix_s()


async def test_a_ca_that_the_tracker_does_not_believe_is_none_to_sign_with(
    ca: TestCa, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    with pytest.raises(ConfigError, match=r"tracker\.ca_dir: .*no host would be believed"):
        Renewer(TestCa(tmp_path / "other").keep(), own)


async def test_nobody_outlives_the_ca(ca: TestCa) -> None:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    renewer = Renewer(ca.keep(), own)
    late_s = ca.ca.certificate.not_valid_after_utc.timestamp()
    own.current = _ending(own, late_s)
    told = await renewer.own(new_request().der)
    assert told is not None
    assert told.certificate == b""


def _ending(own: IdentityHolder, ends_s: float) -> HostIdentity:
    says = dataclasses.replace(own.current.says, ends_s=ends_s)
    return dataclasses.replace(own.current, says=says)
