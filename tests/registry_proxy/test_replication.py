"""From a registry's push to a job at every tracker, with a real proxy in this process."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from p2pdist.registry_proxy.core.replicas import Replica
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Replicate
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.job_api import FakeJobApi
from tests.fakes.registry import FakeRegistry
from tests.fakes.secrets import only

SECRET = "0123456789abcdef-notify"
IMAGE = "registry.test/team/app:1"
RULE = Replicate(name="web", images=("registry.test/team/*",), dcs=("dc1", "dc2"))


@dataclass
class Site:
    """A proxy with rules, its registry and its tracker's job API."""

    registry: FakeRegistry
    api: FakeJobApi
    lab: Lab
    client: aiohttp.ClientSession
    stack: AsyncExitStack

    async def proxy(self, *rules: Replicate, secret: bool = True) -> RunningProxy:
        """Start the proxy, again if it ran."""
        await self.stack.aclose()
        settings = self.lab.settings("proxy")
        path = self.lab.directory / "notify-secret"
        path.touch(mode=0o600)
        path.write_text(SECRET + "\n")
        own = replace(
            settings.proxy,
            job_trackers=(self.api.url,),
            notify_secret_file=path if secret else None,
        )
        settings = replace(settings, proxy=own, replicate=rules)
        return await self.stack.enter_async_context(running_proxy(settings))

    def push(self, content: bytes, tag: str = "1") -> str:
        return self.registry.add_image("team/app", tag, [content]).manifest_digest

    async def notify(
        self, proxy: RunningProxy, *, host: str = "registry.test", tag: str = "1", **request: Any
    ) -> int:
        target = {
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "repository": "team/app",
            "tag": tag,
        }
        event = {"action": "push", "target": target, "request": {"host": host}}
        request.setdefault("headers", {"Authorization": f"Bearer {SECRET}"})
        request.setdefault("data", json.dumps({"events": [event]}))
        url = f"{url_of(proxy.registry)}/p2pdist/v1/notifications{request.pop('query', '')}"
        async with self.client.request(request.pop("method", "POST"), url, **request) as answer:
            return answer.status


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with (
        FakeRegistry() as registry,
        open_lab(tmp_path, {"registry.test": registry.url}) as lab,
        FakeJobApi(lab.keys.secret_file.read_bytes().strip(), ("dc1", "dc2")) as api,
        aiohttp.ClientSession() as client,
        AsyncExitStack() as stack,
    ):
        yield Site(registry, api, lab, client, stack)


async def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


def replica(proxy: RunningProxy) -> Replica:
    """What the proxy knows of IMAGE by RULE."""
    assert proxy.replicating.replication is not None
    found = proxy.replicating.replication.replicas.get("web", IMAGE)
    assert found is not None
    return found


async def metrics(site: Site, proxy: RunningProxy) -> dict[str, float]:
    async with site.client.get(f"{url_of(proxy.admin)}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith("p2pdist_"))
    return {name: float(value) for name, value in pairs}


def behind(values: dict[str, float], dc: str) -> float:
    return values[f'p2pdist_replication_behind{{dc="{dc}",rule="web"}}']


async def test_a_push_becomes_a_job_with_the_new_digest(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"old")
    base = url_of(proxy.registry)
    async with site.client.get(f"{base}/v2/team/app/manifests/1?ns=registry.test") as answer:
        assert answer.status == 200  # the tag is believed for 30 s from now on
    digest = site.push(b"new")

    assert await site.notify(proxy) == 202

    await until(lambda: site.api.specs)
    (spec,) = site.api.specs.values()
    assert spec.images[0].digest == digest
    assert str(spec.images[0]) == IMAGE
    assert (spec.dcs, spec.proxies_only, spec.note) == (["dc1", "dc2"], True, "rule web")


async def test_another_cluster_secret_gives_another_token(site: Site) -> None:
    """The trackers have dropped the old one; the proxy was never restarted."""
    proxy = await site.proxy(RULE)
    site.api.secret = b"the secret that took its place"
    await proxy.running.secret._take(only(site.api.secret))
    site.push(b"one")

    await site.notify(proxy)

    await until(lambda: site.api.specs)


async def test_the_figures_follow_the_job(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"one")
    await site.notify(proxy)
    await until(lambda: site.api.specs)
    site.api.ready["job1"] = {"dc1"}

    async def standing() -> tuple[float, float]:
        values = await metrics(site, proxy)
        return behind(values, "dc1"), behind(values, "dc2")

    async with asyncio.timeout(15):
        while await standing() != (0, 1):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    values = await metrics(site, proxy)
    assert values['p2pdist_replication_lag_seconds{dc="dc2",rule="web"}'] > 0
    assert values['p2pdist_replication_lag_seconds{dc="dc1",rule="web"}'] == 0
    site.api.finish("job1")
    async with asyncio.timeout(15):
        while await standing() != (0, 0):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    values = await metrics(site, proxy)
    assert values['p2pdist_replications_total{result="submitted",rule="web"}'] == 1
    assert values['p2pdist_notifications_total{kind="distribution",result="queued"}'] == 1


async def test_many_events_of_one_push_are_one_job(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"one")

    for _ in range(5):
        assert await site.notify(proxy) == 202
    await until(lambda: site.api.specs)
    site.api.finish("job1")
    await until(lambda: replica(proxy).state == "done")

    assert site.api.asked.count("POST /api/v1/jobs") == 1


async def test_a_tracker_that_is_away_gets_the_job_when_it_is_back(site: Site) -> None:
    proxy = await site.proxy(RULE)
    digest = site.push(b"one")
    await site.api.stop()
    await site.notify(proxy)
    await until(lambda: replica(proxy).tries > 0)

    await site.api.start()

    await until(lambda: site.api.digests == [digest])


async def test_a_queued_push_survives_a_restart(site: Site) -> None:
    proxy = await site.proxy(RULE)
    digest = site.push(b"one")
    await site.api.stop()
    assert await site.notify(proxy) == 202

    proxy = await site.proxy(RULE)
    assert proxy.replicating.replication is not None
    assert proxy.replicating.replication.replicas.queue_length() == 1
    await site.api.start()

    await until(lambda: site.api.digests == [digest])


async def test_a_newer_digest_ends_the_older_job(site: Site) -> None:
    proxy = await site.proxy(RULE)
    old = site.push(b"old")
    await site.notify(proxy)
    await until(lambda: site.api.specs)
    new = site.push(b"new")

    await site.notify(proxy)

    await until(lambda: site.api.digests == [old, new])
    await until(lambda: site.api.states == {"job1": "cancelled", "job2": "running"})


async def test_a_tag_that_moves_back_gets_a_job_again(site: Site) -> None:
    """The key of its first job stands for one that was cancelled."""
    proxy = await site.proxy(RULE)

    async def moves_to(content: bytes, number: int) -> None:
        site.push(content)
        await site.notify(proxy)
        await until(lambda: len(site.api.specs) == number)

    for number, content in enumerate((b"one", b"two", b"one"), 1):
        await moves_to(content, number)

    first, second, third = site.api.digests
    assert first == third != second
    await until(lambda: list(site.api.states.values()) == ["cancelled", "cancelled", "running"])


async def test_two_proxies_with_one_rule_file_one_job(site: Site) -> None:
    one = await site.proxy(RULE)
    site.push(b"one")
    other = await site.lab.stack.enter_async_context(
        running_proxy(
            replace(
                site.lab.settings("other"),
                proxy=replace(
                    site.lab.settings("other").proxy,
                    job_trackers=(site.api.url,),
                    notify_secret_file=site.lab.directory / "notify-secret",
                ),
                replicate=(RULE,),
            )
        )
    )

    await asyncio.gather(site.notify(one), site.notify(other))

    await until(lambda: site.api.asked.count("POST /api/v1/jobs") == 2)
    assert list(site.api.specs) == ["job1"]


async def test_an_operators_cancel_is_left_alone(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"one")
    await site.notify(proxy)
    await until(lambda: site.api.specs)

    site.api.states["job1"] = "cancelled"

    await until(lambda: replica(proxy).state == "done")
    assert list(site.api.specs) == ["job1"]


async def test_a_tag_that_is_gone_is_given_up(site: Site) -> None:
    proxy = await site.proxy(RULE)
    await site.notify(proxy, tag="never")

    replication = proxy.replicating.replication
    assert replication is not None
    await until(lambda: replication.results["web", "failed"] == 1)
    assert len(replication.replicas) == 0


async def test_polling_finds_what_nobody_told_of(site: Site) -> None:
    first = site.push(b"one")
    site.push(b"other", tag="nightly")
    rule = replace(RULE, images=("registry.test/team/app:1*",), poll=1.0)
    await site.proxy(rule)
    await until(lambda: site.api.digests == [first])

    second = site.push(b"two")

    await until(lambda: site.api.digests == [first, second])


async def test_only_who_has_the_secret_is_heard(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    proxy = await site.proxy(RULE)
    site.push(b"one")
    wrong = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}

    assert await site.notify(proxy, headers={}) == 401
    assert await site.notify(proxy, headers=wrong) == 401
    assert await site.notify(proxy, headers=wrong, query="?secret=nor-this-one") == 401
    assert await site.notify(proxy, headers={}, query=f"?secret={SECRET}") == 202
    assert await site.notify(proxy, headers={"X-P2pdist-Secret": SECRET}) == 202
    assert await site.notify(proxy, headers={"Authorization": SECRET}) == 202
    assert await site.notify(proxy, query=f"?secret={SECRET}", data=b"nonsense") == 400
    assert await site.notify(proxy, data=io.BytesIO(b"x" * ((1 << 20) + 1))) == 413
    assert await site.notify(proxy, method="GET") == 405
    await until(lambda: site.api.specs)

    shown = "\n".join(f"{record.getMessage()} {record.__dict__}" for record in caplog.records)
    refused: list[Any] = [r for r in caplog.records if r.getMessage() == "notification.refused"]
    strangers = [r.fields for r in refused if r.fields.get("audit") == "refused"]
    assert [(line["peer"], line["who"]) for line in strangers] == [("127.0.0.1", "nobody")]
    assert SECRET not in shown
    assert "nor-this-one" not in shown


async def test_a_registry_of_another_name_is_ignored_unless_told(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"one")

    assert await site.notify(proxy, host="elsewhere.test") == 202
    key = 'p2pdist_notifications_total{kind="distribution",result="ignored"}'
    assert (await metrics(site, proxy))[key] == 1
    assert await site.notify(proxy, host="elsewhere.test", query="?upstream=registry.test") == 202

    await until(lambda: len(site.api.specs) == 1)


async def test_the_registrys_own_address_is_a_name_of_it(site: Site) -> None:
    proxy = await site.proxy(RULE)
    site.push(b"one")

    await site.notify(proxy, host=site.registry.host)

    await until(lambda: len(site.api.specs) == 1)


async def test_without_a_secret_there_is_no_such_endpoint(site: Site) -> None:
    proxy = await site.proxy(RULE, secret=False)

    assert await site.notify(proxy) == 404


async def test_a_damaged_queue_is_moved_aside(site: Site) -> None:
    path = site.lab.directory / "proxy" / "proxy" / "replication.v1.db"
    path.parent.mkdir(parents=True, mode=0o700)
    path.write_bytes(b"no database at all" * 1000)

    proxy = await site.proxy(RULE)

    site.push(b"one")
    assert await site.notify(proxy) == 202
    await until(lambda: site.api.specs)
    assert path.with_suffix(".damaged").exists()
