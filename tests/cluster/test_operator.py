"""Jobs where certificates are required: an operator's, and those of a proxy's rules."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from p2pdist.cli.prewarm import prewarm
from p2pdist.model.ids import HostId
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Replicate
from tests.cluster.test_identity import IDS, certified
from tests.fakes.cluster import Lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry import FakeRegistry
from tests.process.identities import TestCa
from tests.tracker.servers import wait_until

OPERATOR = HostId("e" * 32)


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as found:
        found.add_image("library/app", "1", [random_bytes(1 << 20, 1)])
        found.add_image("library/app", "2", [random_bytes(1 << 20, 2)])
        yield found


async def test_an_operator_and_a_rule_order_under_their_own_names(
    lab: Lab, tmp_path: Path, client: aiohttp.ClientSession
) -> None:
    ca = TestCa(tmp_path)
    certified(lab, ca, "tracker", "proxy", "peer")
    lab.require_identity = True
    tracker = await lab.tracker()
    settings = lab.settings("proxy")
    rule = Replicate(name="app", images=("docker.io/library/app:1",), dcs=("dc1",), poll=3600.0)
    own = replace(settings.proxy, job_trackers=(url_of(tracker.admin),))
    async with running_proxy(replace(settings, proxy=own, replicate=(rule,))) as proxy:
        lab.proxies.append(url_of(proxy.registry))
        peer = await lab.peer("one")
        jobs, hosts = tracker.server.core.jobs.jobs, tracker.server.core.hosts
        await wait_until(lambda: sum(host.about is not None for host in hosts.values()) == 2)
        argv = [
            "docker.io/library/app:2",
            *("--tracker", url_of(tracker.admin), "--endpoint", url_of(peer.mirror)),
            *("--identity", str(ca.directory("operator", OPERATOR)), "-o", "json"),
        ]
        result = await asyncio.to_thread(CliRunner().invoke, prewarm, argv)
        assert result.exit_code == 0, result.output
        (job,) = json.loads(result.stdout)["jobs"]
        assert (job["state"], job["filed_by"]) == ("done", f"operator {OPERATOR}")

        await wait_until(lambda: len(jobs) == 2)
        assert {job.spec.filed_by for job in jobs.values()} == {
            f"operator {OPERATOR}", f"proxy {IDS['proxy']}",
        }  # fmt: skip
        await wait_until(lambda: all(job.state == "done" for job in jobs.values()))
        async with client.get(f"{url_of(tracker.admin)}/metrics") as answer:
            assert answer.status == 200
