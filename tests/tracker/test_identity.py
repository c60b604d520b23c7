"""Control connections under certificates: who is taken, who is refused, and what each end hears."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from p2pdist.control.client import TrackerClient
from p2pdist.model.control import Announce, Welcome
from p2pdist.model.control_wire import FEATURE_REVOKED_HOSTS, FEATURES, HANDSHAKE_S, Kind
from p2pdist.model.health import Reason
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Role
from p2pdist.process.health import Health
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.proxy_key_holder import ProxyKeyHolder
from p2pdist.process.revoked_hosts import sign_revocation
from p2pdist.tracker.renewing import Renewer
from p2pdist.tracker.server import TrackerServer
from tests.control.test_client import Host
from tests.fakes.secrets import always, held
from tests.process.identities import TestCa
from tests.tracker.hosts import key, member, seed
from tests.tracker.servers import (
    DEADLINE_S,
    SECRET,
    SIGNER,
    TRACKER,
    connected,
    dialled,
    running,
    tracker_server,
    wait_until,
)

ME = member(1)


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def holder_of(identity: HostIdentity | IdentityHolder | None) -> IdentityHolder | None:
    return IdentityHolder(identity) if isinstance(identity, HostIdentity) else identity


def server_of(
    identity: HostIdentity | IdentityHolder | None,
    me: Member = TRACKER,
    federation: tuple[str, ...] = (),
    renewer: Renewer | None = None,
) -> TrackerServer:
    return TrackerServer(
        Address("127.0.0.1", 0),
        secret=held(SECRET),
        me=me,
        proxy_keys=ProxyKeyHolder(None, [SIGNER.public_key_bytes]),
        rng=Random(1),
        identity=holder_of(identity),
        federation=federation,
        renewer=renewer,
    )


def tracker_of(ca: TestCa, *, required: bool = False, begun_days: float = 0.0) -> TrackerServer:
    return server_of(
        ca.identity("tracker", TRACKER.host_id, required=required, begun_days=begun_days)
    )


def client_of(
    host: Host,
    url: str,
    identity: HostIdentity | IdentityHolder | None,
    health: Health,
    secret: bytes,
) -> TrackerClient:
    return TrackerClient(
        [url],
        secret=always(secret),
        me=lambda: host.me,
        listener=host,
        rng=Random(2),
        numbers=dict,
        health=health,
        identity=holder_of(identity),
    )


@asynccontextmanager
async def dialling(
    server: TrackerServer,
    identity: HostIdentity | IdentityHolder | None,
    me: Member = ME,
    secret: bytes = SECRET,
) -> AsyncIterator[tuple[TrackerClient, Health]]:
    """A host that dials `server` for as long as the block lasts."""
    health, host = Health(), Host(me)
    host.held = [seed(key())]
    async with running(server) as url:
        client = client_of(host, url, identity, health, secret)
        client.start()
        try:
            yield client, health
        finally:
            await client.close()


async def refusal(health: Health) -> str:
    """What the host's status says of it, once it does."""
    await wait_until(lambda: "identity_refused" in health.names())
    (told,) = [t for t in health.look() if t.reason.value == "identity_refused"]
    return told.detail


async def test_both_ends_with_certificates_speak_tls(ca: TestCa) -> None:
    server = tracker_of(ca)
    async with dialling(server, ca.identity("peer", ME.host_id)) as (client, health):
        await wait_until(lambda: client.connected and server.core.swarms)

        (connection,) = server.reception._connections
        assert connection.certificate is not None
        assert client.tracker == TRACKER
        assert health.names() == []


async def test_a_host_without_one_is_taken_under_the_secret_on_the_same_port(ca: TestCa) -> None:
    server = tracker_of(ca)
    async with dialling(server, None) as (client, _):
        await wait_until(lambda: client.connected and server.core.swarms)

        (connection,) = server.reception._connections
        assert connection.certificate is None


async def test_where_an_identity_is_required_the_secret_alone_is_refused(ca: TestCa) -> None:
    server = tracker_of(ca, required=True)
    async with dialling(server, None) as (client, health):
        assert "takes hosts with a certificate only" in await refusal(health)
        assert not client.connected
        assert not server.core.hosts_connected


@pytest.mark.parametrize(
    ("shown", "says"),
    [
        (("peer", HostId("e" * 32)), f"for host {'e' * 32}, the hello for {ME.host_id}"),
        (("proxy", ME.host_id), "for a proxy, the hello for a peer"),
    ],
)
async def test_a_hello_that_is_not_the_certificates_is_refused_with_the_reason(
    ca: TestCa, shown: tuple[str, HostId], says: str
) -> None:
    server = tracker_of(ca)
    me = replace(ME, role=Role.PEER)
    identity = ca.identity(*shown)
    async with dialling(server, identity, me) as (_, health):
        assert says in await refusal(health)
        assert not server.core.hosts_connected


@pytest.mark.parametrize("role", [Role.PROXY, Role.TRACKER])
async def test_a_stolen_peers_certificate_is_no_proxy_and_no_tracker(
    ca: TestCa, role: Role
) -> None:
    server = tracker_of(ca)
    thief = replace(ME, role=role)
    async with dialling(server, ca.identity("peer", ME.host_id), thief) as (_, health):
        assert f"for a peer, the hello for a {role.value}" in await refusal(health)


async def test_an_operators_certificate_is_no_host(ca: TestCa) -> None:
    operator = ca.directory("operator", ME.host_id)
    identity = ca.identity("peer", ME.host_id)
    identity.client.load_cert_chain(operator / "cert.pem", operator / "key.pem")
    async with dialling(tracker_of(ca), identity) as (_, health):
        assert "for an operator, the hello for a peer" in await refusal(health)


async def test_a_stolen_peers_certificate_is_no_tracker_for_hosts(ca: TestCa) -> None:
    """Who has it knows the secret, too."""
    thief = ca.directory("peer", TRACKER.host_id)
    identity = ca.identity("tracker", TRACKER.host_id)
    identity.server.load_cert_chain(thief / "cert.pem", thief / "key.pem")
    async with dialling(server_of(identity), ca.identity("peer", ME.host_id)) as (client, health):
        assert "for a peer, the hello for a tracker" in await refusal(health)
        assert not client.connected


async def test_a_peer_that_says_so_is_no_tracker_either(ca: TestCa) -> None:
    """It is not even told that the host knows the secret."""
    identity = ca.identity("tracker", TRACKER.host_id)
    thief = ca.directory("peer", TRACKER.host_id)
    identity.server.load_cert_chain(thief / "cert.pem", thief / "key.pem")
    server = server_of(identity, replace(TRACKER, role=Role.PEER))
    async with dialling(server, ca.identity("peer", ME.host_id)) as (_, health):
        assert "for a peer, not for a tracker" in await refusal(health)
        assert not server.core.counters.connections_total


async def test_a_refusal_is_over_once_the_tracker_takes_the_host(ca: TestCa) -> None:
    server, health, host = tracker_of(ca), Health(), Host(ME)
    async with running(server) as url:
        client = client_of(host, url, ca.identity("peer", ME.host_id), health, SECRET)
        health.happened(Reason.IDENTITY_REFUSED, url, "the certificate had ended")
        assert health.names() == ["identity_refused"]
        client.start()
        try:
            await wait_until(lambda: client.connected)
            assert health.names() == []
        finally:
            await client.close()


async def test_a_tracker_that_names_another_host_than_its_certificate_is_left(ca: TestCa) -> None:
    server = server_of(ca.identity("tracker", HostId("e" * 32)))
    async with dialling(server, ca.identity("peer", ME.host_id)) as (client, health):
        assert f"for host {'e' * 32}" in await refusal(health)
        assert not client.connected


@pytest.mark.parametrize(("begun_days", "says"), [(31, "has expired"), (-1, "not take our")])
async def test_a_host_outside_of_its_certificates_dates_hears_so(
    ca: TestCa, begun_days: float, says: str
) -> None:
    server = tracker_of(ca)
    identity = ca.identity("peer", ME.host_id, begun_days=begun_days, required=True)
    async with dialling(server, identity) as (_, health):
        assert says in await refusal(health)
        assert not server.core.hosts_connected


async def test_a_tracker_outside_of_its_certificates_dates_is_left(ca: TestCa) -> None:
    server = tracker_of(ca, begun_days=31, required=True)
    async with dialling(server, ca.identity("peer", ME.host_id)) as (client, health):
        assert "not believed: certificate has expired" in await refusal(health)
        assert not client.connected


async def test_another_ca_is_believed_by_neither_end(ca: TestCa, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = TestCa(tmp_path / "other")
    async with dialling(tracker_of(ca), other.identity("peer", ME.host_id)) as (_, health):
        assert "certificate is not believed: self-signed" in await refusal(health)


async def test_a_tracker_that_does_not_believe_the_hosts_ca_says_so(
    ca: TestCa, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    identity = TestCa(tmp_path / "other").identity("peer", ME.host_id)
    identity.client.load_verify_locations(cadata=ca.ca.pem.decode())
    with caplog.at_level(logging.WARNING):
        async with dialling(tracker_of(ca), identity) as (_, health):
            assert "does not believe the CA of our certificate" in await refusal(health)
    said = [vars(record)["fields"].get("error", "") for record in caplog.records]
    assert any("the other end's certificate is not believed" in text for text in said)


async def test_a_host_with_an_identity_goes_on_in_clear_with_a_tracker_without(
    ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        server = tracker_server()
        async with dialling(server, ca.identity("peer", ME.host_id)) as (client, health):
            await wait_until(lambda: client.connected and server.core.swarms)
            assert health.names() == []
    assert caplog.text.count("tracker.no_identity") == 1


async def test_where_it_is_required_a_tracker_without_is_left(ca: TestCa) -> None:
    server = tracker_server()
    identity = ca.identity("peer", ME.host_id, required=True)
    async with dialling(server, identity) as (client, health):
        assert "has no identity, and cluster.require_identity" in await refusal(health)
        assert not client.connected
        assert not server.core.counters.connections_total


async def test_a_tracker_that_is_asked_too_much_tells_tls_hosts_when_to_come_back(
    ca: TestCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tracker_of(ca)
    monkeypatch.setattr(server.reception.intake, "arrive", lambda *_: 7.0)
    async with dialling(server, ca.identity("peer", ME.host_id, required=True)) as (client, health):
        core = client._core
        await wait_until(lambda: (core.next_deadline_s() or 0) - _now_s() > 5.0 + 1.0)
        assert health.names() == []


def _now_s() -> float:
    return asyncio.get_running_loop().time()


async def test_within_tls_the_secret_is_proved_as_ever(ca: TestCa) -> None:
    server, identity = tracker_of(ca), ca.identity("peer", ME.host_id)
    async with dialling(server, identity, secret=b"another secret than that") as (client, health):
        await wait_until(lambda: "wrong_secret" in health.names())
        assert not client.connected
        await wait_until(lambda: server.core.counters.strangers_total)


async def test_federated_trackers_show_each_other_theirs(ca: TestCa) -> None:
    other = replace(TRACKER, host_id=HostId("b" * 32), place=replace(TRACKER.place, dc="dc2"))
    far = server_of(ca.identity("tracker", other.host_id, required=True), other)
    async with running(far) as url:
        near = server_of(ca.identity("tracker", TRACKER.host_id, required=True), federation=(url,))
        async with running(near):
            await wait_until(lambda: near.core.grants.remotes == frozenset({"dc2"}))


# --- hostile ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [b"\x16" + b"\0" * 300, b"\x16\x03\x01\x02\x00\x01" + b"\xff" * 600, b"\x15\x03\x03", b"GET /"],
)
async def test_garbage_in_place_of_a_client_hello_ends_its_connection_alone(
    ca: TestCa, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = tracker_of(ca)
    async with running(server) as url, connected(url) as host:
        await host.send_bytes(garbage)
        async with asyncio.timeout(HANDSHAKE_S - 1):
            with contextlib.suppress(OSError):
                await host._reader.read()
        await wait_until(lambda: server.core.counters.protocol_faults_total == 1)
        async with dialled(url, ME) as other:
            await other.send(Announce([seed(key())], full=True))
            await wait_until(lambda: server.core.swarms)
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("said", [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00"])
async def test_a_slow_tls_handshake_has_the_deadline_of_any(
    ca: TestCa, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = tracker_of(ca)
    monkeypatch.setattr(server.reception._handshakes, "_after_s", 0.2, raising=True)
    async with running(server) as url, connected(url) as host:
        await host.send_bytes(said)
        async with asyncio.timeout(DEADLINE_S):
            await host._reader.read()
        assert server.reception.intake.greeted == 0


async def test_a_tls_host_that_goes_in_the_middle_of_it_leaves_nothing(ca: TestCa) -> None:
    server = tracker_of(ca)
    async with running(server) as url:
        async with connected(url) as host:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = ca.identity("peer", ME.host_id).client.wrap_bio(incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            await host.send_bytes(outgoing.read())
            await wait_until(lambda: server.reception.intake.greeted == 1)
        await wait_until(lambda: not server.reception._connections)
        assert server.reception.intake.greeted == 0


# --- revoked hosts --------------------------------------------------------------------------------


def revoke(holder: IdentityHolder, ca: TestCa, *hosts: HostId) -> Awaitable[None]:
    return holder.hear_revoked([sign_revocation(ca.ca, hosts, 1e9)])


async def test_a_revoked_host_is_cut_off_and_refused(ca: TestCa) -> None:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    server = server_of(own)
    async with dialling(server, ca.identity("peer", ME.host_id)) as (client, health):
        await wait_until(lambda: client.connected)
        await revoke(own, ca, ME.host_id)

        assert f"host {ME.host_id} was revoked" in await refusal(health)
        await wait_until(lambda: not server.core.hosts_connected)
        total = server.core.counters.protocol_faults_total
        await wait_until(lambda: server.core.counters.protocol_faults_total > total)
        assert not client.connected


async def test_a_host_under_the_secret_alone_is_nobody_that_was_revoked(ca: TestCa) -> None:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    async with dialling(server_of(own), None) as (client, _):
        await wait_until(lambda: client.connected)
        await revoke(own, ca, ME.host_id)
        await wait_until(lambda: client.connected)


@pytest.mark.parametrize("known_first", [True, False])
async def test_all_that_are_connected_hear_of_it_and_who_comes_later(
    ca: TestCa, known_first: bool
) -> None:
    other = HostId("e" * 32)
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    holder = IdentityHolder(ca.identity("peer", ME.host_id))
    if known_first:
        await revoke(own, ca, other)
    async with dialling(server_of(own), holder) as (client, _):
        await wait_until(lambda: client.connected)
        if not known_first:
            await revoke(own, ca, other)
        await wait_until(lambda: other in holder.current.revoked)
        assert client.connected


async def test_a_host_of_before_is_told_nothing_that_it_does_not_know(ca: TestCa) -> None:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    server = server_of(own)
    await revoke(own, ca, HostId("e" * 32))
    features = FEATURES & ~FEATURE_REVOKED_HOSTS
    async with running(server) as url, dialled(url, ME, features=features) as host:
        await revoke(own, ca, HostId("d" * 32))
        await host.send_frame(Kind.PING)
        assert isinstance(await host.receive(), Welcome)
        assert (await host.receive_frame())[0] == Kind.PONG


async def test_a_revoked_tracker_is_left_and_dialled_in_vain(ca: TestCa) -> None:
    holder = IdentityHolder(ca.identity("peer", ME.host_id))
    async with dialling(tracker_of(ca), holder) as (client, health):
        await wait_until(lambda: client.connected)
        await revoke(holder, ca, TRACKER.host_id)
        assert f"host {TRACKER.host_id} was revoked" in await refusal(health)
        assert not client.connected


async def test_trackers_tell_each_other(ca: TestCa) -> None:
    other = replace(TRACKER, host_id=HostId("b" * 32), place=replace(TRACKER.place, dc="dc2"))
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    far = IdentityHolder(ca.identity("tracker", other.host_id))
    async with running(server_of(far, other)) as url, running(server_of(own, federation=(url,))):
        await revoke(far, ca, ME.host_id)
        await wait_until(lambda: ME.host_id in own.current.revoked)
