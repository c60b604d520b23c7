"""Tag lists of many pages: how to go on is between the registry and its client."""

from __future__ import annotations

import json

import aiohttp
import pytest

from p2pdist.oci.links import next_page
from tests.fakes.cluster import Lab, url_of
from tests.fakes.registry import FakeRegistry
from tests.fakes.tag_paging import PAGINGS, Page, Paging, back_to_the_start
from tests.faults.records import recorded

TAGS = [f"v{number:02}" for number in range(25)]
WALKS = {
    "by ns": "library/app/tags/list?n=10&ns=docker.io",
    "by path": "docker.io/library/app/tags/list?n=10",
}
PAGES_MAX = 10


def add_tags(registry: FakeRegistry) -> None:
    for tag in TAGS:
        registry.add_image("library/app", tag, [b"x"])


async def walk(client: aiohttp.ClientSession, base_url: str, target: str | None) -> list[list[str]]:
    """Follow the links from page to page, as `crane ls` does."""
    pages: list[list[str]] = []
    while target is not None:
        assert len(pages) < PAGES_MAX, "a list without an end"
        async with client.get(f"{base_url}{target}", raise_for_status=True) as answer:
            pages.append(json.loads(await answer.read())["tags"])
            target = next_page(answer.headers.getall("Link", ()))
    return pages


@pytest.mark.parametrize("way", WALKS)
@pytest.mark.parametrize("registry_kind", PAGINGS)
async def test_every_tag_comes_once(
    registry: FakeRegistry,
    lab: Lab,
    client: aiohttp.ClientSession,
    registry_kind: str,
    way: str,
) -> None:
    add_tags(registry)
    registry.tag_paging = PAGINGS[registry_kind]
    registry.link_base = "https://not-asked.test/prefix"
    await lab.tracker()
    proxy, peer = await lab.proxy(), await lab.peer("a")

    for base_url in (url_of(proxy.registry), url_of(peer.mirror)):
        pages = await walk(client, base_url, f"/v2/{WALKS[way]}")
        assert [tag for page in pages for tag in page] == TAGS

    asked = [request.query for request in registry.asked if "tags" in request.path]
    assert all("ns" not in query for query in asked)
    assert asked[0] == {"n": "10"}


STANDSTILLS: dict[str, tuple[Paging, list[list[str]]]] = {
    "last is ignored": (back_to_the_start, [TAGS[:10], []]),
    "one cursor for ever": (lambda tags, query, size: Page(tags, "page=same"), [TAGS, TAGS]),
}


@pytest.mark.faults
@pytest.mark.parametrize("form", STANDSTILLS)
async def test_a_list_that_does_not_advance_ends(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, form: str
) -> None:
    add_tags(registry)
    registry.tag_paging, expected = STANDSTILLS[form]
    await lab.tracker()
    proxy, peer = await lab.proxy(), await lab.peer("a")

    with recorded(80, "tag list that leads back to itself", form) as record:
        for base_url in (url_of(proxy.registry), url_of(peer.mirror)):
            assert await walk(client, base_url, f"/v2/{WALKS['by ns']}") == expected
        record.outcome = "ends with its second page, at proxy and peer"


@pytest.mark.parametrize("elsewhere", ["library/other/tags/list", "_catalog"])
async def test_a_link_to_another_list_is_not_followed(
    registry: FakeRegistry, lab: Lab, client: aiohttp.ClientSession, elsewhere: str
) -> None:
    add_tags(registry)
    registry.link_base = f"http://169.254.169.254/v2/{elsewhere}?"
    proxy = await lab.proxy()

    async with client.get(f"{url_of(proxy.registry)}/v2/{WALKS['by ns']}") as answer:
        assert answer.status == 502
        assert "Link" not in answer.headers
