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


async def test_an_operators_next_command_has_its_certificate_renewed(
    lab: Lab, tmp_path: Path
) -> None:
    ca = TestCa(tmp_path)
    certified(lab, ca, "tracker")
    lab.require_identity, lab.ca_dir = True, ca.keep()
    tracker = await lab.tracker()
    directory = ca.directory("operator", OPERATOR, begun_days=25)
    argv = ["ls", "--tracker", url_of(tracker.admin), "--identity", str(directory)]

    first, second = [await asyncio.to_thread(CliRunner().invoke, prewarm, argv) for _ in range(2)]

    assert (first.exit_code, first.stdout) == (0, "no jobs\n"), first.output
    assert f"renewed your certificate in {directory}: good for 30 days" in first.stderr
    assert (second.exit_code, second.stdout, second.stderr) == (0, "no jobs\n", "")


@pytest.mark.parametrize(("begun_days", "warns"), [(19, False), (21, False), (25, True)])
async def test_one_that_nobody_renews_is_warned_of_in_its_last_week(
    lab: Lab, tmp_path: Path, begun_days: int, warns: bool
) -> None:
    ca = TestCa(tmp_path)
    certified(lab, ca, "tracker")
    tracker = await lab.tracker()
    directory = ca.directory("operator", OPERATOR, begun_days=begun_days)
    argv = ["ls", "--tracker", url_of(tracker.admin), "--identity", str(directory)]

    result = await asyncio.to_thread(CliRunner().invoke, prewarm, argv)

    assert (result.exit_code, result.stdout) == (0, "no jobs\n"), result.output
    assert (f"warning: your certificate in {directory} ends in 5 days" in result.stderr) is warns
    assert ("this tracker has no CA to sign with" in result.stderr) is warns
