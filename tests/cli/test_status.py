"""What `p2pdist status` shows: from where pulls came, and every trouble."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.cli.status import describe
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry

WELL: dict[str, Any] = {
    "role": "peer",
    "host_id": "a" * 32,
    "dc": "dc1",
    "uptime_s": 1.0,
    "tracker_connected": True,
    "named": {"trackers": 1, "proxies": 1},
    "links": 0,
    "registries": 1,
    "degraded": [],
    "swarms": {"active": 0, "whole": 0},
    "cache_bytes": 0,
    "bytes_received": {},
    "bytes_sent": {},
    "rejected": {},
    "bans": 0,
    "hedges": 0,
    "stalls": 0,
    "recent_pulls": [],
}


def trouble(**changed: object) -> str:
    (line,) = [line for line in describe(WELL | changed) if line.startswith("  trouble")]
    return line.removeprefix("  trouble").strip()


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({}, "none"),
        ({"swarms": {"active": 1, "whole": 0}, "links": 1}, "none"),
        ({"swarms": {"active": 1, "whole": 0}}, "no link, and blobs on their way"),
        ({"tracker_connected": False}, "tracker away"),
        ({"tracker_connected": False, "named": {"trackers": 0, "proxies": 1}}, "none"),
        ({"named": {"trackers": 1, "proxies": 0}}, "no proxy named"),
        ({"bans": 1, "rejected": {"map": 2}}, "1 bans, 2 rejected (map)"),
    ],
)
def test_what_is_not_as_it_should_be_is_trouble(changed: dict[str, Any], shown: str) -> None:
    assert trouble(**changed) == shown


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        ({"links": 3}, "3, tracker up"),
        ({"links": 3, "links_sealed": 1, "identity": None}, "3, tracker up"),
        ({"links": 3, "links_sealed": 1, "identity": {"role": "peer"}}, "3 (2 in clear), tracker"),
        ({"links": 3, "links_sealed": 3, "identity": {"role": "peer"}}, "3, tracker up"),
    ],
)
def test_links_in_clear_are_shown_where_this_host_has_a_certificate(
    changed: dict[str, Any], shown: str
) -> None:
    (line,) = [text for text in describe(WELL | changed) if text.startswith("  links")]
    assert line.removeprefix("  links").strip().startswith(shown)


def test_a_reason_of_readyz_is_trouble_once_and_comes_with_its_fix() -> None:
    away = {"reason": "tracker_away", "for_s": 60.0, "detail": "none is reached", "fix": "start it"}

    assert trouble(tracker_connected=False, degraded=[away]) == "tracker_away"
    assert "fix: start it" in "\n".join(describe(WELL | {"degraded": [away]}))


async def status_of(lab: Lab) -> dict[str, Any]:
    await lab.tracker()
    await lab.proxy()
    peer = await lab.peer("a")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(peer.mirror))
        async with client.get(f"{url_of(peer.admin)}/api/v1/status") as answer:
            status: dict[str, Any] = await answer.json()
    return status


async def test_it_says_from_where_the_last_image_came(tmp_path: Path) -> None:
    layer = random_bytes(1 << 20, 7)
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "1", [layer])
        async with open_lab(tmp_path, {"docker.io": registry.url}) as lab:
            status = await status_of(lab)

    lines = describe(status)
    at = next(i for i, line in enumerate(lines) if line.startswith("  pulled"))
    assert "docker.io/library/app:1" in lines[at]
    assert "from proxy 1.0 MB" in lines[at + 1]
    assert max(map(len, lines)) <= 80
