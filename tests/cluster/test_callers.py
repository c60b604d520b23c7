"""Registries that decide by the credentials of each caller, through real proxies and peers."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.model.control import digest_key
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.members import Address
from p2pdist.oci.manifest import OCI_INDEX
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process.identity import read_secret
from p2pdist.registry_proxy import caller_gate
from p2pdist.registry_proxy.core.spending import Spending
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Upstream
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.asker import asker
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry, ImageInfo
from tests.fakes.registry_rights import Rights, basic
from tests.faults.records import recorded

pytestmark = pytest.mark.faults

HOST = "registry.test"
LAYER = random_bytes(3_000_000, 191)
SMALL = random_bytes(1000, 192)
OTHERS = random_bytes(2_000_000, 193)
ALICE, BOB = basic("alice"), basic("bob")
CONTAINERD = "containerd/1.6.20"


@dataclass
class House:
    """A proxy and a peer before a registry with two users and a repository for each."""

    registry: FakeRegistry
    lab: Lab
    client: aiohttp.ClientSession
    tracker: RunningTracker
    proxy: RunningProxy
    peer: RunningPeer
    app: ImageInfo
    other: ImageInfo

    def at(self, where: str) -> str:
        return url_of(self.peer.mirror if where == "peer" else self.proxy.registry)

    async def ask(
        self,
        what: str,
        who: str = "",
        *,
        repository: str = "alice/app",
        where: str = "peer",
        method: str = "GET",
        **headers: str,
    ) -> tuple[int, bytes, str]:
        """Status, body, and challenge."""
        sent = {"User-Agent": CONTAINERD, **headers}
        if who:
            sent["Authorization"] = who
        url = f"{self.at(where)}/v2/{repository}/{what}?ns={HOST}"
        async with self.client.request(method, url, headers=sent) as answer:
            return answer.status, await answer.read(), answer.headers.get("WWW-Authenticate", "")

    async def pull(self, who: str, *, where: str = "peer", image: ImageInfo | None = None) -> bool:
        """Whether all of an image comes, and is right."""
        image = image or self.app
        repository = image.repository
        status, body, _ = await self.ask("manifests/1", who, repository=repository, where=where)
        if status != 200 or digest_of(body) != image.manifest_digest:
            return False
        for digest in (image.config_digest, *image.layer_digests):
            status, body, _ = await self.ask(
                f"blobs/{digest}", who, repository=repository, where=where
            )
            if status != 200 or digest_of(body) != digest:
                return False
        return True

    def all_of(self, image: ImageInfo) -> list[str]:
        digests: list[Digest] = [image.config_digest, *image.layer_digests]
        blobs = [f"blobs/{digest}" for digest in digests]
        return ["manifests/1", f"manifests/{image.manifest_digest}", *blobs]


@pytest.fixture(params=["bearer", "basic"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
async def house(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, kind: str
) -> AsyncIterator[House]:
    rights = Rights({"alice": {"alice/app"}, "bob": {"bob/app"}}, public={"free/app"})
    rights.kind = "basic" if kind == "basic" else "bearer"
    registry.rights = rights
    app = registry.add_image("alice/app", "1", [LAYER, SMALL])
    other = registry.add_image("bob/app", "1", [OTHERS])
    registry.add_image("free/app", "1", [SMALL])
    ups = (
        Upstream(HOST, registry.url, access="passthrough"),
        Upstream("docker.io", registry.url),
    )
    tracker = await lab.tracker()
    async with running_proxy(replace(lab.settings("proxy"), upstream=ups)) as proxy:
        lab.proxies.append(url_of(proxy.registry))
        async with running_peer(replace(lab.settings("a"), upstream=())) as peer:
            yield House(registry, lab, client, tracker, proxy, peer, app, other)


WHERE = pytest.mark.parametrize("where", ["peer", "proxy"])


@WHERE
async def test_each_user_pulls_what_the_registry_lets_it_and_nothing_else(
    house: House, where: str
) -> None:
    for _ in ("cold", "warm"):
        assert await house.pull(ALICE, where=where)
        assert await house.pull(BOB, where=where, image=house.other)
        for who, image in (
            ("", house.app), (BOB, house.app), ("", house.other), (ALICE, house.other),
            (basic("mallory"), house.app), ("Bearer made-up", house.app), ("Basic Og==", house.app),
        ):  # fmt: skip
            for what in house.all_of(image):
                for method in ("GET", "HEAD"):
                    status, body, _ = await house.ask(
                        what, who, repository=image.repository, where=where, method=method
                    )
                    assert status == 401, (who, what, method)
                    assert LAYER[:1000] not in body


@WHERE
async def test_a_range_is_for_who_may_read_the_whole(house: House, where: str) -> None:
    layer = f"blobs/{house.app.layer_digests[0]}"
    assert await house.pull(ALICE, where=where)

    status, body, _ = await house.ask(layer, ALICE, where=where, Range="bytes=1000000-1999999")
    assert (status, body) == (206, LAYER[1_000_000:2_000_000])
    status, _, _ = await house.ask(layer, BOB, where=where, Range="bytes=0-9")
    assert status == 401
    status, _, _ = await house.ask(
        layer, BOB, where=where, **{"If-None-Match": f'"{house.app.layer_digests[0]}"'}
    )
    assert status == 401


@WHERE
async def test_a_digest_is_served_under_the_repository_that_has_it_only(
    house: House, where: str
) -> None:
    """Also where the other repository names it, as anybody may push a manifest that does."""
    assert await house.pull(ALICE, where=where)
    assert await house.pull(BOB, where=where, image=house.other)
    lie = json.loads(house.app.manifest_body)
    house.registry.add_manifest("bob/app", json.dumps(lie).encode() + b" ", tag="lie")
    index = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            {
                "mediaType": house.app.media_type,
                "digest": house.app.manifest_digest,
                "size": len(house.app.manifest_body),
            }
        ],
    }
    house.registry.add_manifest("bob/app", json.dumps(index).encode(), OCI_INDEX, tag="index")
    for tag in ("lie", "index"):
        status, _, _ = await house.ask(f"manifests/{tag}", BOB, repository="bob/app", where=where)
        assert status == 200

    for what in house.all_of(house.app)[1:]:
        for repository in ("bob/app", "free/app"):
            status, body, _ = await house.ask(what, BOB, repository=repository, where=where)
            if f"blobs/{house.app.layer_digests[1]}" == what and repository == "free/app":
                continue  # it is there, for everybody
            assert status == 404, (what, repository)
            assert body not in (LAYER, house.app.manifest_body)


@WHERE
async def test_neither_is_it_served_under_another_registry(house: House, where: str) -> None:
    assert await house.pull(ALICE, where=where)
    house.registry.rights = Rights({}, public={"bob/app"})
    house.registry.remove("bob/app", "1")
    house.registry.add_manifest("bob/app", house.app.manifest_body, house.app.media_type, tag="1")
    for what in house.all_of(house.app)[2:]:
        url = f"{house.at(where)}/v2/bob/app/{what}?ns=docker.io"
        async with house.client.get(url) as answer:
            assert answer.status == 404
            assert await answer.read() != LAYER


@WHERE
async def test_what_everybody_may_read_needs_no_credentials(house: House, where: str) -> None:
    status, _, _ = await house.ask("manifests/1", repository="free/app", where=where)
    assert status == 200


@WHERE
async def test_the_challenge_leads_to_the_registrys_own_realm_for_this_repository(
    house: House, where: str, kind: str
) -> None:
    _, _, challenge = await house.ask("manifests/1", where=where)
    if kind == "basic":
        assert challenge == 'Basic realm="fake"'
        return
    realm = f"{house.registry.url}/token"
    assert challenge == (f'Bearer realm="{realm}",service="fake",scope="repository:alice/app:pull"')
    query = {"service": "fake", "scope": "repository:alice/app:pull"}
    headers = {"Authorization": ALICE}
    async with house.client.get(realm, params=query, headers=headers) as answer:
        token = (await answer.json())["token"]
    assert await house.pull(f"Bearer {token}", where=where)
    status, _, _ = await house.ask(
        "manifests/1", f"Bearer {token}", repository="bob/app", where=where
    )
    assert status == 401


async def test_dockerd_is_never_challenged(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.rights = Rights({"alice": {"library/app"}})
    image = registry.add_image("library/app", "1", [SMALL])
    ups = (Upstream("docker.io", registry.url, access="passthrough"),)
    await lab.tracker()
    async with running_proxy(replace(lab.settings("proxy"), upstream=ups)) as proxy:
        lab.proxies.append(url_of(proxy.registry))
        async with running_peer(replace(lab.settings("a"), upstream=())) as peer:
            for address in (proxy.registry, peer.mirror):
                for what, status in (
                    ("", 200),
                    ("library/app/manifests/1", 403),
                    (f"library/app/manifests/{image.manifest_digest}", 403),
                    (f"library/app/blobs/{image.layer_digests[0]}", 404),
                ):
                    url, headers = f"{url_of(address)}/v2/{what}", {"User-Agent": "docker/20.10.24"}
                    async with client.get(url, headers=headers) as answer:
                        assert (what, answer.status) == (what, status)
                        assert "WWW-Authenticate" not in answer.headers


@WHERE
async def test_containers_image_is_asked_who_it_is_by_ping(house: House, where: str) -> None:
    url = f"{house.at(where)}/v2/"
    for agent, status in (
        ("skopeo/1.9.3", 401),
        ("containers/5.23.1 (github.com/containers/image)", 401),
        (CONTAINERD, 200),
        ("p2pdist", 200),
    ):
        async with house.client.get(url, headers={"User-Agent": agent}) as answer:
            assert (agent, answer.status) == (agent, status)
    headers = {"User-Agent": "skopeo/1.9.3", "Authorization": "Basic Og=="}
    async with house.client.get(url, headers=headers) as answer:
        assert answer.status == 200


async def test_the_swarm_and_the_tracker_never_hear_of_it(house: House) -> None:
    assert await house.pull(ALICE)
    assert await house.pull(ALICE, where="proxy")
    digests = [house.app.manifest_digest, house.app.config_digest, *house.app.layer_digests]

    for node in (house.proxy.running, house.peer.running):
        assert [d for d in digests if node.store.get(d) is not None] == []
        assert [d for d in digests if await node.store.get_small(d) is not None] == []
        announced = {delta.key for delta in node.node.tracker_side.full_announce()}
        assert not announced & {digest_key(digest) for digest in digests}
        await _exchanges_nothing(house.lab, node.exchange_address, digests)


async def _exchanges_nothing(lab: Lab, node: Address, digests: list[Digest]) -> None:
    async with asker(node, read_secret(lab.keys.secret_file)) as asking:
        for digest in digests:
            assert await asking.get_small(digest) is None
            assert await asking.say_interest(digest) == []


async def test_a_layer_is_read_once_for_all_who_may(house: House) -> None:
    pulls = await asyncio.gather(*(house.pull(ALICE, where=w) for w in ("peer", "proxy") * 3))
    assert all(pulls)
    assert house.registry.payload_bytes[house.app.layer_digests[0]] == len(LAYER)


@WHERE
async def test_a_right_that_is_taken_back_ends_within_a_minute(
    house: House, where: str, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert await house.pull(ALICE, where=where)
    assert house.registry.rights is not None
    house.registry.rights.may_pull["alice"].clear()
    monkeypatch.setattr(caller_gate, "_now_s", lambda: asyncio.get_running_loop().time() + 60)

    for what in house.all_of(house.app):
        status, _, _ = await house.ask(what, ALICE, where=where)
        assert status == 401, what


@WHERE
async def test_a_right_that_is_given_counts_within_seconds(
    house: House, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await house.pull(BOB, where=where)
    assert house.registry.rights is not None
    house.registry.rights.may_pull["bob"].add("alice/app")
    monkeypatch.setattr(caller_gate, "_now_s", lambda: asyncio.get_running_loop().time() + 5)

    assert await house.pull(BOB, where=where)


@WHERE
async def test_one_question_is_asked_for_a_whole_pull(house: House, where: str) -> None:
    assert await house.pull(ALICE, where=where)
    heads = [a for a in house.registry.asked if a.method == "HEAD" and a.status == 200]
    before = len(house.registry.asked)
    assert await house.pull(ALICE, where=where)

    # One for the right, one for the tag.
    assert len(heads) <= 2
    assert house.registry.asked[before:] == []


@WHERE
async def test_lists_are_the_registrys_own_answer_to_the_caller(house: House, where: str) -> None:
    status, body, _ = await house.ask("tags/list", ALICE, where=where)
    assert (status, json.loads(body)["tags"]) == (200, ["1"])
    for who in ("", BOB):
        status, _, _ = await house.ask("tags/list", who, where=where)
        assert status == 401
        status, _, _ = await house.ask(f"referrers/{house.app.manifest_digest}", who, where=where)
        assert status == 401
    assert await house.pull(ALICE, where=where)


@WHERE
async def test_no_layer_of_it_is_read_ahead_of_its_pull(house: House, where: str) -> None:
    """Early starts carry no caller, and are nobody."""
    assert await house.pull(ALICE, where=where)
    index = f"_p2pdist/layer-index/{house.app.layer_digests[0]}"
    status, _, _ = await house.ask(index, ALICE, where=where)
    assert status == 404
    demand = {"Range": "bytes=0-99", "P2pdist-Demand": "1"}
    status, _, _ = await house.ask(f"blobs/{house.app.layer_digests[0]}", where=where, **demand)
    assert status == 401


def _written_below(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.rglob("*") if file.is_file())


async def test_credentials_show_nowhere(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = ("alice-secret", ALICE.partition(" ")[2], "made-up", "fake-alice-token")
    for who in (ALICE, BOB, "Bearer made-up"):
        await house.pull(who)
        await house.pull(who, where="proxy")
    said = "\n".join(f"{r.getMessage()} {r.__dict__}" for r in caplog.records)
    for admin in (house.proxy.admin, house.peer.admin):
        for path in ("metrics", "api/v1/status"):
            async with house.client.get(f"{url_of(admin)}/{path}") as answer:
                said += await answer.text()
    written = await asyncio.to_thread(_written_below, tmp_path)
    for secret in secrets:
        assert secret not in said
        assert secret.encode() not in written


async def test_credentials_go_to_no_other_registry(house: House) -> None:
    url = f"{house.at('peer')}/v2/free/app/manifests/1?ns=docker.io"
    before = len(house.registry.asked)
    async with house.client.get(url, headers={"Authorization": ALICE}) as answer:
        assert answer.status == 200
    asked = house.registry.asked[before:]
    assert asked
    assert all(a.authorization != ALICE for a in asked)
    assert not any("alice" in (a.authorization or "") for a in asked)


async def _warning(house: House, what: str, who: str, where: str) -> tuple[int, str]:
    url = f"{house.at(where)}/v2/alice/app/{what}?ns={HOST}"
    async with house.client.get(url, headers={"Authorization": who}) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Warning", "")


@WHERE
async def test_with_the_registry_down_who_was_let_before_keeps_access_for_the_grace(
    house: House, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(103, "registry down", f"caller allowed before, at the {where}") as record:
        assert await house.pull(ALICE, where=where)
        assert not await house.pull(BOB, where=where)
        await house.registry.__aexit__()
        late_s = 60.0
        monkeypatch.setattr(
            caller_gate, "_now_s", lambda: asyncio.get_running_loop().time() + late_s
        )

        status, warning = await _warning(house, "manifests/1", ALICE, where)
        assert status == 200
        assert "does not answer" in warning
        assert await house.pull(ALICE, where=where)
        for who, what in zip(("", BOB), house.all_of(house.app)[1:3], strict=True):
            status, _, _ = await house.ask(what, who, where=where)
            assert status in (401, 404, 502), "who was never let"

        late_s = 60.0 + 600.0
        for what in house.all_of(house.app)[:3]:
            status, _, _ = await house.ask(what, ALICE, where=where)
            assert status in (404, 502), what
        record.outcome = "served with a warning, until the grace ends; nobody else"


@WHERE
async def test_nobody_gets_a_grace_by_spending_its_budget(
    house: House, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its registry is not asked, and says nothing: it may have taken the right back."""
    assert await house.pull(ALICE, where=where)
    monkeypatch.setattr(Spending, "ask", lambda *_: 5.0)
    monkeypatch.setattr(caller_gate, "_now_s", lambda: asyncio.get_running_loop().time() + 60.0)

    for what in house.all_of(house.app)[:3]:
        status, _, _ = await house.ask(what, ALICE, where=where)
        assert status in (404, 429), what


async def test_a_peer_without_a_proxy_has_the_registry_decide(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, kind: str
) -> None:
    registry.rights = Rights({"alice": {"alice/app"}, "bob": set()})
    registry.rights.kind = "basic" if kind == "basic" else "bearer"
    image = registry.add_image("alice/app", "1", [LAYER, SMALL])
    settings = lab.settings("a")
    settings = replace(
        settings,
        peer=replace(settings.peer, direct=True),
        upstream=(Upstream(HOST, registry.url, access="passthrough"),),
    )
    wanted = ["manifests/1", *(f"blobs/{digest}" for digest in image.layer_digests)]
    async with running_peer(settings) as peer:
        for who, expected in ((ALICE, 200), (BOB, 401), ("", 401), (ALICE, 200)):
            for what in wanted:
                url = f"{url_of(peer.mirror)}/v2/alice/app/{what}?ns={HOST}"
                headers = {"Authorization": who} if who else {}
                async with client.get(url, headers=headers) as answer:
                    assert (who, what, answer.status) == (who, what, expected)
                    body = await answer.read()
                    assert expected == 401 or what.endswith(("/1", digest_of(body)))
                    assert ("WWW-Authenticate" in answer.headers) == (expected == 401)
        assert peer.running.node.store.get(image.layer_digests[0]) is None
        assert await peer.running.node.store.get_small(image.layer_digests[1]) is None
