"""The admin port of real daemons: health, metrics, status."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import make_mocked_request
from prometheus_client.parser import text_string_to_metric_families

from p2pdist.model.durations import DURATION_BOUNDS_S
from p2pdist.model.members import Address
from p2pdist.process.admin import AdminServer
from p2pdist.process.metrics import (
    SERIES_MAX,
    Durations,
    Sample,
    registry_of,
    render,
)
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry


@pytest.fixture
async def admins(tmp_path: Path) -> AsyncIterator[dict[str, str]]:
    """Tracker, proxy and peer after one pull, by their admin URLs."""
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "1", [random_bytes(1 << 20, 1)])
        async with open_lab(tmp_path, {"docker.io": registry.url}) as lab:
            yield await _pulled(lab)


async def _pulled(lab: Lab) -> dict[str, str]:
    tracker, proxy, peer = await lab.tracker(), await lab.proxy(), await lab.peer("a")
    async with aiohttp.ClientSession() as client:
        await pull(client, url_of(peer.mirror))
    admins = {"tracker": tracker.admin, "proxy": proxy.admin, "peer": peer.admin}
    return {role: url_of(admin) for role, admin in admins.items()}


async def get(url: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("role", ["tracker", "proxy", "peer"])
async def test_metrics_are_named_and_bounded(admins: dict[str, str], role: str) -> None:
    status, text = await get(f"{admins[role]}/metrics")

    families = list(text_string_to_metric_families(text))
    samples = [sample for family in families for sample in family.samples]
    assert status == 200
    assert all(family.name.startswith(("p2pdist_", "process_")) for family in families)
    assert all(f.name.endswith("_total") is False for f in families if f.type == "gauge")
    assert len(samples) < SERIES_MAX
    labels = {value for sample in samples for value in sample.labels.values()}
    assert not any("sha256" in value or "library/app" in value for value in labels)


async def test_the_peer_counts_what_it_received(admins: dict[str, str]) -> None:
    _, text = await get(f"{admins['peer']}/metrics")

    values = {
        (s.name, s.labels.get("source")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }
    assert values["p2pdist_bytes_received_total", "proxy"] >= 1 << 20
    assert values["p2pdist_pull_duration_seconds_count", None] >= 1


@pytest.mark.parametrize("role", ["tracker", "proxy", "peer"])
@pytest.mark.parametrize("path", ["/livez", "/healthz", "/readyz", "/version", "/api/v1/status"])
async def test_health_is_answered(admins: dict[str, str], role: str, path: str) -> None:
    assert (await get(admins[role] + path))[0] == 200


async def test_what_is_not_there_is_404(admins: dict[str, str]) -> None:
    assert (await get(f"{admins['peer']}/debug"))[0] == 404


async def test_readiness_needs_neither_tracker_nor_proxy(tmp_path: Path) -> None:
    async with open_lab(tmp_path, {"docker.io": "http://127.0.0.1:1"}) as lab:
        lab.trackers.append("tcp://127.0.0.1:1")
        lab.proxies.append("http://127.0.0.1:1")
        peer = await lab.peer("alone")

        assert (await get(f"{url_of(peer.admin)}/readyz"))[0] == 200


async def test_a_draining_daemon_is_not_ready(tmp_path: Path) -> None:
    async with open_lab(tmp_path, {"docker.io": "http://127.0.0.1:1"}) as lab:
        peer = await lab.peer("leaving")
        peer.admin_server.draining = True

        status, text = await get(f"{url_of(peer.admin)}/readyz")

    assert status == 503
    assert '"not_draining":false' in text


async def test_a_degraded_daemon_stays_ready_and_says_so() -> None:
    admin = AdminServer(
        Address("127.0.0.1", 0),
        status=dict,
        samples=list,
        ready=lambda: {"mirror": True},
        degraded=lambda: ["store_full"],
    )
    try:
        status, text = await get(f"{url_of(await admin.start())}/readyz")
    finally:
        await admin.close()

    assert status == 200
    assert '"degraded":["store_full"]' in text


async def test_metrics_are_rendered_beside_the_event_loop() -> None:
    """To list 10,000 descriptors takes milliseconds."""
    rendered_by: list[int] = []

    def samples() -> list[Sample]:
        rendered_by.append(threading.get_ident())
        return []

    admin = AdminServer(Address("127.0.0.1", 0), status=dict, samples=samples, ready=dict)
    try:
        await get(f"{url_of(await admin.start())}/metrics")
    finally:
        await admin.close()

    assert rendered_by
    assert threading.get_ident() not in rendered_by


def test_durations_fall_into_their_buckets() -> None:
    durations = Durations("p2pdist_test_seconds", "Test.", ["kind"], [["a"]])
    for seconds in (0.001, DURATION_BOUNDS_S[0], 3.0, 10_000.0):
        durations.observe(["a"], seconds)

    text = render(registry_of(durations=[durations])).decode()

    assert 'p2pdist_test_seconds_bucket{kind="a",le="0.005"} 2.0' in text
    assert 'p2pdist_test_seconds_bucket{kind="a",le="5"} 3.0' in text
    assert 'p2pdist_test_seconds_bucket{kind="a",le="+Inf"} 4.0' in text
    assert 'p2pdist_test_seconds_sum{kind="a"} 10003.006' in text


@pytest.mark.parametrize(
    ("remote", "status"), [("127.0.0.1", 200), ("::1", 200), ("10.0.0.9", 403), (None, 403)]
)
async def test_settings_are_told_on_this_host_only(remote: str | None, status: int) -> None:
    admin = AdminServer(
        Address("127.0.0.1", 0), status=dict, samples=list, ready=dict, settings=dict
    )
    request = make_mocked_request("GET", "/api/v1/settings").clone(remote=remote or "")

    answer = await admin._api_settings(request)

    assert answer.status == status
