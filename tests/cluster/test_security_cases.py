"""What somebody can do who has taken something, to daemons that are processes of their own.

All of them require certificates, as docs/security.md tells to; its table names these tests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.control.client import TrackerClient
from p2pdist.errors import LinkRefused, P2pdistError
from p2pdist.exchange import frames as fr
from p2pdist.exchange.link import Link
from p2pdist.exchange.transport import MAGIC
from p2pdist.model.control import Delta, digest_key, tag_swarm_key
from p2pdist.model.handshake import IDENTITY, PROOF_BYTES, ClientHandshake
from p2pdist.model.ids import Digest, HostId, digest_of, tag_key
from p2pdist.model.members import Address, Role
from p2pdist.model.statements import TagStatement
from p2pdist.process.clock import unix_s
from p2pdist.process.health import Health
from p2pdist.process.identity import read_secret, read_signer
from tests.control.test_client import Host
from tests.exchange.transport_parts import End
from tests.fakes.daemons import Daemon, Site, member, open_site, own_loopback, upstream
from tests.fakes.pulling import pull, random_bytes, read_blob
from tests.fakes.registry import FakeRegistry, ImageInfo, TokenAuth
from tests.fakes.registry_rights import Rights, basic
from tests.fakes.secrets import only
from tests.faults.fault_proxy import Corrupt, FaultProxy
from tests.tracker.servers import wait_until

pytestmark = pytest.mark.timeout(120)

LAYER = random_bytes(3_000_000, 117)
THIEF = HostId("e" * 32)
# Addresses for documentation: no host has them.
FOREIGN = Address("192.0.2.9", 5301)


@pytest.fixture
async def site(
    registry: FakeRegistry, client: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Site]:
    async with open_site(tmp_path, client, [upstream("docker.io", registry.url)]) as site:
        yield site


async def nobody_is_banned(site: Site, *daemons: Daemon) -> None:
    for daemon in daemons:
        assert await site.metric(daemon, "p2pdist_peer_bans_total") == 0
        assert await site.metric(daemon, "p2pdist_chunk_rejected_total") == 0


async def until_refused(health: Health) -> None:
    await wait_until(lambda: "identity_refused" in health.names())


async def until_named(control: TrackerClient) -> None:
    """Its inventory is the first that it says then."""
    await wait_until(lambda: control.connected)


# --- who speaks ---------------------------------------------------------------------------------


async def test_a_stolen_peers_certificate_is_no_other_host(
    site: Site, registry: FakeRegistry
) -> None:
    """Whoever has it has the cluster secret, too."""
    for tag in ("1", "2"):
        registry.add_image("library/app", tag, [random_bytes(1 << 20, int(tag))])
    tracker, proxy, victim = await site.three()
    await pull(site.client, victim.url)
    shown = site.stolen("peer", THIEF)
    claims = [(proxy.host_id, Role.PROXY), (victim.host_id, Role.PEER), (THIEF, Role.PROXY)]

    for host_id, role in claims:
        heard = End()
        async with site.linking(heard, member(host_id, role), shown) as thief:
            for daemon in (proxy, victim):
                try:
                    imposed = await thief.dial(daemon.exchange, timeout_s=5)
                except (P2pdistError, OSError):
                    continue
                async with asyncio.timeout(10):
                    await imposed.wait_closed()
        assert heard.frames == []
        health = Health()
        async with site.announcing(Host(member(host_id, role)), shown, health) as control:
            await until_refused(health)
            assert not control.connected

    for daemon in (proxy, victim):
        assert f"is for host {THIEF}, the hello for" in daemon.log
        assert "is for a peer, the hello for a proxy" in daemon.log
    await nobody_is_banned(site, proxy, victim)
    assert await site.metric(tracker, "p2pdist_tracker_connections_total") == 2
    assert await site.metric(victim, "p2pdist_tracker_connected") == 1
    await pull(site.client, victim.url, tag="2")
    assert await site.metric(victim, "p2pdist_fallback_bytes_total") == 0


async def test_an_address_that_a_member_is_not_seen_from_is_told_to_nobody(
    site: Site, registry: FakeRegistry
) -> None:
    image = registry.add_image("library/app", "1", [LAYER])
    _, _, liar = await site.three(advertise=[FOREIGN])
    await pull(site.client, liar.url)
    reader = Host(member(HostId("f" * 32), Role.PEER))
    key = digest_key(image.layer_digests[0])

    async with site.announcing(reader, site.stolen("peer", reader.me.host_id)) as control:
        await wait_until(lambda: control.connected)
        control.join(key)
        await wait_until(lambda: [h for h in reader.handouts if h.members])
        honest = await site.start("peer")
        await pull(site.client, honest.url)
        hosts = {m.host_id: m.addresses for h in reader.handouts for m in h.members}

    assert liar.host_id not in hosts
    assert FOREIGN not in {address for told in hosts.values() for address in told}
    degraded = {t["reason"]: t["detail"] for t in (await site.status(liar))["degraded"]}
    assert str(FOREIGN) in degraded["address_refused"]


async def test_of_one_stolen_certificate_there_is_one_host(
    site: Site, registry: FakeRegistry
) -> None:
    """Nobody surrounds a host with a crowd of its own: each of it would need a certificate."""
    registry.add_image("library/app", "1", [LAYER])
    tracker = await site.start("tracker")
    shown = site.stolen("peer", THIEF)
    first = Host(member(THIEF, Role.PEER))
    async with contextlib.AsyncExitStack() as crowd:
        control = await crowd.enter_async_context(site.announcing(first, shown))
        await wait_until(lambda: control.connected)
        for number in range(8):
            health = Health()
            other = Host(member(HostId(f"{0xABC000 + number:032x}"), Role.PEER))
            await crowd.enter_async_context(site.announcing(other, shown, health))
            await until_refused(health)
        connected = await site.metric(tracker, "p2pdist_hosts_connected")

    assert connected == 1


async def told(address: Address, *parts: bytes) -> bytes:
    """All that is said to somebody who sends that, until the connection ends."""
    reader, writer = await asyncio.open_connection(address.host, address.port)
    heard = b""
    try:
        async with asyncio.timeout(15):
            for part in parts:
                writer.write(part)
                await writer.drain()
            while data := await reader.read(65536):
                heard += data
    except ConnectionError:
        pass
    finally:
        writer.close()
    return heard


async def test_wrong_proofs_of_the_secret_are_met_with_silence_and_stop_nobody(
    site: Site, registry: FakeRegistry
) -> None:
    """And the right one is of no use without a certificate."""
    registry.add_image("library/app", "1", [LAYER])
    _, proxy, peer = await site.three()
    turn = asyncio.Semaphore(50)

    async def guess() -> bytes:
        """What is said behind the server's hello and its proof."""
        me = member(THIEF, Role.PEER)
        hand = ClientHandshake(only(b"?" * 32), me, os.urandom, IDENTITY)
        greeting = MAGIC + struct.pack(">H", len(hand.hello)) + hand.hello
        async with turn:
            heard = await told(proxy.exchange, greeting, os.urandom(PROOF_BYTES))
        (hello_bytes,) = struct.unpack_from(">H", heard)
        assert len(heard) >= 2 + hello_bytes + PROOF_BYTES
        return heard[2 + hello_bytes + PROOF_BYTES :]

    async with asyncio.TaskGroup() as both:
        guessing = [both.create_task(guess()) for _ in range(500)]
        pulling = both.create_task(pull(site.client, peer.url))

    assert digest_of(LAYER) in pulling.result()
    assert {task.result() for task in guessing} == {b""}
    async with site.linking(End(), member(THIEF, Role.PEER), None) as thief:
        with pytest.raises(LinkRefused, match="identity"):
            await thief.dial(proxy.exchange, timeout_s=5)
    await nobody_is_banned(site, proxy, peer)
    assert await site.metric(proxy, "p2pdist_links", kind="clear") == 0
    assert read_secret(site.keys.secret_file) not in proxy.shown


# --- what is said -------------------------------------------------------------------------------


class Insider(End):
    """Calls itself at work on a blob twice a second, and sends nothing of it."""

    def __init__(self, digest: Digest) -> None:
        super().__init__()
        self.digest = digest
        self.said = 0

    async def say(self, link: Link) -> None:
        while not link.closed:
            link.send(fr.Working(self.digest))
            self.said += 1
            await asyncio.sleep(0.5)

    def frame(self, link: Link, frame: fr.Frame) -> None:
        if isinstance(frame, fr.GetSmall | fr.Request | fr.GetStatement):
            return  # it has heard it, and that is all
        super().frame(link, frame)


@pytest.mark.parametrize("role", ["peer", "proxy"])
async def test_who_says_that_it_is_at_work_and_sends_nothing_holds_nobody_up(
    site: Site, registry: FakeRegistry, role: str
) -> None:
    """With a stolen proxy's certificate as well: it is that proxy then. The others are away."""
    image = registry.add_image("library/app", "1", [LAYER])
    layer = image.layer_digests[0]
    _, proxy, peer = await site.three(direct=True)
    url = f"{peer.url}/v2/library/app/manifests/1"
    async with site.client.get(url, raise_for_status=True) as answer:
        await answer.read()
    await proxy.process.end()

    insider, me = Insider(layer), member(THIEF, Role(role))
    async with (
        site.linking(insider, me, site.stolen(role, THIEF)) as transport,
        asyncio.TaskGroup() as talking,
    ):
        link = await transport.dial(peer.exchange, timeout_s=5)
        saying = talking.create_task(insider.say(link))
        began_s = asyncio.get_running_loop().time()
        url = f"{peer.url}/v2/library/app/blobs/{layer}"
        async with site.client.get(url, raise_for_status=True) as answer:
            await answer.content.readany()
            first_s = asyncio.get_running_loop().time() - began_s
        assert await read_blob(site.client, peer.url, layer) == LAYER
        assert insider.said
        assert not link.closed, "it was there all the time"
        saying.cancel()

    assert first_s < 5.0


async def test_bytes_that_somebody_changes_on_the_wire_end_a_link_and_are_nobodys_fault(
    site: Site, registry: FakeRegistry
) -> None:
    """What the peer takes for the proxy's address is where somebody passes on what that sends."""
    elsewhere = own_loopback(200)
    layer = random_bytes(12_000_000, 118)
    registry.add_image("library/app", "1", [layer])
    proxy = await site.start("proxy", listen=elsewhere)  # no tracker: nobody names another way
    between = FaultProxy(proxy.exchange, Address(elsewhere, proxy.exchange.port))
    between.down.append(Corrupt(0.1))
    async with between:
        peer = await site.start("peer")
        async with asyncio.timeout(60):
            assert digest_of(layer) in await pull(site.client, peer.url)

        assert between.connections > 1, "no link ended"
        await nobody_is_banned(site, peer, proxy)
        assert await site.metric(peer, "p2pdist_links", kind="clear") == 0


class Replayer(End):
    """Answers what a tag stands for with what a proxy said long ago."""

    def __init__(self, record: bytes, old: ImageInfo) -> None:
        super().__init__()
        self.asked = 0
        self._record = record
        self._old = old

    def frame(self, link: Link, frame: fr.Frame) -> None:
        match frame:
            case fr.GetStatement(request_id):
                self.asked += 1
                link.send(fr.StatementIs(request_id, self._record))
            case fr.GetSmall(request_id):
                body = self._old.manifest_body
                link.send_small(request_id, self._old.media_type, body, lambda: None)


async def test_an_old_word_on_a_tag_does_not_outdo_a_newer_one(
    site: Site, registry: FakeRegistry
) -> None:
    """The proxy is away. Three stolen hosts have the record of 20 hours ago, which is alive; an
    honest one has today's."""
    key = tag_key("docker.io", "library/app", "1")
    old = registry.add_image("library/app", "1", [random_bytes(1000, 1)])
    then = int(unix_s()) - 20 * 3600
    size = len(old.manifest_body)
    statement = TagStatement(key, old.manifest_digest, old.media_type, size, then, then + 24 * 3600)
    record = read_signer(site.keys.key_file).sign(statement)
    new = registry.add_image("library/app", "1", [random_bytes(1000, 2)])
    tracker, proxy, honest = await site.three()
    await pull(site.client, honest.url)
    await proxy.process.end()

    replayers = [Replayer(record, old) for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        for number, replayer in enumerate(replayers):
            host_id = HostId(f"{0xABC000 + number:032x}")
            shown = site.stolen("peer", host_id)
            transport = await stack.enter_async_context(
                site.linking(replayer, member(host_id, Role.PEER), shown)
            )
            own = await transport.listen("127.0.0.1", 0)
            host = Host(member(host_id, Role.PEER, own))
            host.held = [Delta(tag_swarm_key(key), 1, True)]
            host.held.append(Delta(digest_key(old.manifest_digest), 1, True))
            control = await stack.enter_async_context(site.announcing(host, shown))
            await until_named(control)
        victim = await site.start("peer")
        await until_connected(site, victim)
        url = f"{victim.url}/v2/library/app/manifests/1"
        async with site.client.get(url, raise_for_status=True) as answer:
            body = await answer.read()

    assert sum(replayer.asked for replayer in replayers), "nobody asked a thief"
    assert body == new.manifest_body
    await nobody_is_banned(site, victim)
    assert await site.metric(tracker, "p2pdist_tracker_protocol_faults_total") == 0


async def until_connected(site: Site, daemon: Daemon) -> None:
    async with asyncio.timeout(20):
        while not (await site.status(daemon))["tracker_connected"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


# --- who may read -------------------------------------------------------------------------------


async def test_a_digest_is_read_under_the_repository_alone_that_has_it(
    site: Site, registry: FakeRegistry, client: aiohttp.ClientSession
) -> None:
    """Of a registry that decides by its callers, of one that is shared, and by another's name."""
    registry.rights = Rights({"alice": {"alice/app"}, "bob": {"bob/app"}}, public={"open/app"})
    app = registry.add_image("alice/app", "1", [LAYER])
    registry.add_image("bob/app", "1", [random_bytes(1_000_000, 2)])
    registry.add_image("open/app", "1", [random_bytes(1_000_000, 3)])
    site.upstream = [
        upstream("registry.test", registry.url, access="passthrough"),
        upstream("docker.io", registry.url),
    ]
    _, _, peer = await site.three()

    async def ask(what: str, repository: str, who: str, ns: str = "registry.test") -> int:
        headers = {"User-Agent": "containerd/1.6.20"}
        headers |= {"Authorization": basic(who)} if who else {}
        url = f"{peer.url}/v2/{repository}/{what}?ns={ns}"
        async with client.get(url, headers=headers) as answer:
            body = await answer.read()
        if answer.status != 200:
            assert body not in (LAYER, app.manifest_body)
        return answer.status

    of_app = [f"manifests/{app.manifest_digest}", f"blobs/{app.layer_digests[0]}"]
    for what in of_app:
        assert await ask(what, "alice/app", "alice") == 200
    for what in of_app:
        assert await ask(what, "alice/app", "bob") == 401
        assert await ask(what, "alice/app", "") == 401
        for who in ("bob", "alice"):
            assert await ask(what, "bob/app", who) in (401, 404)
        for who in ("", "bob"):
            assert await ask(what, "open/app", who) == 404
            assert await ask(what, "open/app", who, "docker.io") == 404


def readable_by_others(path: Path, below: Path) -> bool:
    """By somebody who is neither its owner nor in its group."""
    on_the_way = [below, *(below / part for part in path.relative_to(below).parents)]
    return bool(path.stat().st_mode & stat.S_IROTH) and all(
        directory.stat().st_mode & stat.S_IXOTH for directory in on_the_way
    )


async def test_a_shell_of_nobody_reads_by_the_mirror_what_everybody_may_and_no_file(
    site: Site, registry: FakeRegistry, tmp_path: Path
) -> None:
    """Somebody without rights on a peer's host, who reaches loopback."""
    password = tmp_path / "password"
    password.write_text("PASSWORD-OF-ROBOT")
    password.chmod(0o600)
    registry.auth = TokenAuth("robot", "PASSWORD-OF-ROBOT")
    image = registry.add_image("library/app", "1", [LAYER])
    account = {"username": "robot", "password_file": str(password)}
    site.upstream = [
        upstream("shared.test", registry.url, access="shared", **account),
        upstream("own.test", registry.url, access="private", **account),
        upstream("each.test", registry.url, access="passthrough"),
    ]
    tracker, proxy, peer = await site.three()

    async def nobody(ns: str, url: str = peer.url) -> list[int]:
        said = []
        for what in ("manifests/1", f"blobs/{image.layer_digests[0]}"):
            there = f"{url}/v2/library/app/{what}?ns={ns}"
            async with site.client.get(there) as answer:
                said.append(answer.status)
        return said

    assert await nobody("shared.test") == [200, 200], "that is what shared means"
    assert await nobody("own.test") == [403, 404]
    assert await nobody("each.test") == [401, 401]
    assert await nobody("shared.test", proxy.url) == [403, 403], "not from the network"
    secret = read_secret(site.keys.secret_file)
    secrets = [b"PASSWORD-OF-ROBOT", base64.b64encode(b"robot:PASSWORD-OF-ROBOT"), secret]
    for daemon in (tracker, proxy, peer):
        assert not [word for word in secrets if word in daemon.shown]
        assert not [file for file in daemon.files if readable_by_others(file, daemon.state)]
