"""The story of a pull through real daemons names those who brought it, and those who lied."""

from __future__ import annotations

import asyncio
import json

import aiohttp
import pytest
from click.testing import CliRunner

from p2pdist.cli.debug import story
from p2pdist.cli.stories.ask import all_told
from p2pdist.cli.stories.text import describe
from p2pdist.model.ids import digest_of
from p2pdist.model.members import Address
from p2pdist.process.identity import read_secret
from p2pdist.swarm.core.event_log import Entry, Kind, Story
from p2pdist.swarm.stories import PATH
from tests.fakes.cluster import Lab, announced, url_of
from tests.fakes.evil import evil_peer
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry

MIB = 1 << 20
LAYER = random_bytes(6 * MIB + 17, 21)
DIGEST = digest_of(LAYER)


async def story_at(admin: Address) -> Story:
    """Once it is over: whoever pulls has its last byte a moment before."""
    async with asyncio.timeout(10.0):
        while True:
            (told,) = await all_told([url_of(admin)], [DIGEST[:16]])
            found = next(each for each in told.stories if each.wanted)
            if found.outcome != "under_way":
                print("\n".join(describe(told, 100)))
                return found
            await asyncio.sleep(0.01)


def kinds(told: Story) -> set[Kind]:
    return {entry.kind for entry in told.entries}


def entries(told: Story, kind: Kind) -> list[Entry]:
    return [entry for entry in told.entries if entry.kind is kind]


async def test_a_proxy_read_the_registry_and_a_peer_read_the_proxy(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    proxy = await lab.proxy()
    peer = await lab.peer("a")

    await pull(client, url_of(peer.mirror))

    at_proxy, at_peer = await story_at(proxy.admin), await story_at(peer.admin)
    (upstream,) = at_proxy.sources
    assert (upstream.label, upstream.address) == ("upstream", "docker.io")
    assert at_proxy.outcome == at_peer.outcome == "whole"
    assert {Kind.TURNED_TO, Kind.SEALED, Kind.WHOLE} <= kinds(at_proxy)
    (source,) = at_peer.sources
    assert (source.label, source.host) == ("proxy", proxy.running.me().host_id)
    assert source.nbytes == upstream.nbytes == len(LAYER)
    assert {Kind.OPENED, Kind.JOINED, Kind.MAP, Kind.CHUNKS, Kind.LEFT} <= kinds(at_peer)
    times = [entry.at_s for entry in at_peer.entries]
    assert times == sorted(times)


async def test_the_sources_are_those_that_the_pull_counted(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    """With the registry gone a third host reads what two peers and no proxy have."""
    registry.add_image("library/app", "1", [LAYER])
    tracker = await lab.tracker()
    async with lab.proxy_context():
        first = await lab.peer("first")
        await pull(client, url_of(first.mirror))
    await announced(tracker, first)
    second = await lab.peer("second")

    await pull(client, url_of(second.mirror))

    told = await story_at(second.admin)
    (source,) = told.sources
    assert (source.label, source.host) == ("dc", first.running.me().host_id)
    assert source.address == str(first.running.exchange_address)
    assert source.nbytes == len(LAYER) <= second.running.node.counters.received["dc"]


async def test_a_peer_with_wrong_bytes_stands_in_the_story(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("victim")
    secret, keyring = read_secret(lab.keys.secret_file), peer.running.node.keyring
    async with evil_peer(peer.running.exchange_address, secret, keyring, DIGEST) as evil:
        await pull(client, url_of(peer.mirror))
        async with asyncio.timeout(10):
            await evil.down.wait()

    told = await story_at(peer.admin)
    liars = {source.host for source in told.sources if source.bad}
    assert len(liars) == 1
    assert {entry.host for entry in entries(told, Kind.BAD)} == liars
    assert {entry.host for entry in entries(told, Kind.PUNISHED)} == liars
    assert sum(source.nbytes for source in told.sources) == len(LAYER)


async def test_what_was_pulled_twice_was_fetched_once(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    registry.add_image("library/app", "1", [LAYER])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")

    await pull(client, url_of(peer.mirror))
    await pull(client, url_of(peer.mirror))

    told = await story_at(peer.admin)
    assert sum(source.nbytes for source in told.sources) == len(LAYER)
    assert sum(entry.count for entry in entries(told, Kind.OPENED)) == 2


@pytest.mark.parametrize(
    ("asked", "status"), [("", 200), ("ffffff", 404), ("..", 400), ("sha256:", 409), (DIGEST, 200)]
)
async def test_what_the_admin_port_answers(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, asked: str, status: int
) -> None:
    registry.add_image("library/app", "1", [LAYER, random_bytes(MIB, 22)])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await pull(client, url_of(peer.mirror))

    async with client.get(f"{url_of(peer.admin)}{PATH}", params={"digest": asked}) as answer:
        assert answer.status == status


async def test_the_command_takes_an_image_and_prints_all_its_layers(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession
) -> None:
    other = random_bytes(MIB, 23)
    registry.add_image("library/app", "1", [LAYER, other])
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    await pull(client, url_of(peer.mirror))
    where = ["--admin", url_of(peer.admin), "--endpoint", url_of(peer.mirror)]

    shown = await asyncio.to_thread(CliRunner().invoke, story, ["app:1", "--json", *where])

    told = json.loads(shown.output)
    assert [each["stories"][0]["digest"] for each in told] == [DIGEST, digest_of(other)]
