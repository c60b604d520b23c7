"""The job API over HTTP, with hosts that speak the real control protocol to the real tracker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path

import aiohttp
import blake3
import msgspec
import pytest

from p2pdist.control.jobs_client import JobsClient, JobsError
from p2pdist.model.control import (
    Announce,
    Delta,
    Describe,
    Prewarm,
    PrewarmEnd,
    PrewarmReport,
    Proof,
    Prove,
)
from p2pdist.model.jobs import JobSpec, JobState, JobStatus
from p2pdist.model.members import Address, Role
from p2pdist.process.admin import AdminServer
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.operator_token import operator_token
from p2pdist.tracker.job_callers import JobCallers
from p2pdist.tracker.job_desk import JobDesk
from p2pdist.tracker.job_http import BODY_BYTES_MAX, JobHttp
from p2pdist.tracker.job_store import sqlite_job_store
from p2pdist.tracker.server import TrackerServer
from tests.fakes.secrets import always
from tests.tracker.core.jobs.fleet import TAG, image
from tests.tracker.hosts import member
from tests.tracker.servers import DEADLINE_S, SECRET, HandHost, dialled, tracker_server, wait_until

SPEC = JobSpec([image()])
COMING = b"the secret that takes its place"


class Tracker:
    def __init__(self, server: TrackerServer, url: str, admin: str, client: JobsClient) -> None:
        self.server, self.url, self.admin, self.client = server, url, admin, client

    async def until(self, job: str, state: JobState) -> JobStatus:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                status = await self.client.show(job)
                if status.state == state:
                    return status
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running(
    state_dir: Path, *, token: str | None = None, own: HostIdentity | None = None
) -> AsyncIterator[Tracker]:
    """`own`: the certificate of the tracker's admin port."""
    callers = JobCallers(always(COMING, SECRET), None if own is None else IdentityHolder(own))
    async with AsyncExitStack() as stack:
        server = tracker_server(job_store=sqlite_job_store(state_dir / "jobs.db"))
        control = await server.start()
        stack.push_async_callback(server.close)
        admin = AdminServer(
            Address("127.0.0.1", 0),
            status=dict,
            samples=list,
            ready=dict,
            routes=JobHttp(JobDesk(server), callers).routes(),
            tls=lambda: None if own is None else own.server,
        )
        stack.push_async_callback(admin.close)
        url = f"http://{await admin.start()}"
        session = await stack.enter_async_context(aiohttp.ClientSession())
        token = operator_token(SECRET) if token is None else token
        yield Tracker(server, f"tcp://{control}", url, JobsClient(url, token, session))


@asynccontextmanager
async def connected(
    tracker: Tracker, number: int, role: Role = Role.PEER, *labels: str
) -> AsyncIterator[HandHost]:
    async with dialled(tracker.url, member(number, role=role)) as host:
        await host.send(Describe(f"host-{number}", list(labels), "linux/amd64"))
        await host.send(Announce([], full=True))
        yield host


async def described(tracker: Tracker, count: int) -> None:
    hosts = tracker.server.core.hosts
    await wait_until(lambda: sum(host.about is not None for host in hosts.values()) == count)


async def obey(host: HandHost) -> None:
    """Fetch what is ordered, at once, and prove it truthfully: all blobs read as zeros."""
    while True:
        match await host.receive():
            case Prewarm() as order:
                keys = [TAG]
                for one in order.images:
                    keys += [*one.manifests, *(ref.digest for ref in one.blobs)]  # type: ignore[list-item]  # keys are digests here
                await host.send(Announce([Delta(key, 1000, True) for key in keys]))
            case Prove() as asked:
                read = b"\0" * sum(part.length for part in asked.parts)
                await host.send(Proof(asked.seq, blake3.blake3(read, key=asked.key).digest()))
            case _:
                pass


async def test_a_job_from_submission_to_its_end(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as tracker,
        connected(tracker, 1, Role.PROXY) as proxy,
        connected(tracker, 2, Role.PEER, "role=web") as web,
        connected(tracker, 3, Role.PEER, "role=db"),
        asyncio.TaskGroup() as hosts,
    ):
        await described(tracker, 3)
        tasks = [hosts.create_task(obey(host)) for host in (proxy, web)]
        spec = msgspec.structs.replace(SPEC, hosts="role=web", note="cli")
        answer = await tracker.client.submit(spec)
        status = await tracker.until(answer.id, "done")

        assert [(plan.dc, plan.hosts, plan.ready) for plan in answer.plan.dcs] == [("dc1", 1, 0)]
        (dc,) = status.dcs
        assert (dc.hosts, dc.ready, dc.missing_bytes, dc.proxies_ready) == (1, 1, 0, 1)
        assert status.images == ["registry.test/web:v1"]
        assert (status.note, status.hosts) == ("cli", [])
        (host,) = (await tracker.client.show(answer.id, hosts="all")).hosts
        assert (host.name, host.state) == ("host-2", "ready")
        assert [job.id for job in await tracker.client.list()] == [answer.id]
        for task in tasks:
            task.cancel()


async def test_failed_hosts_are_named_with_reasons_and_retried_on_demand(tmp_path: Path) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2) as host:
        await described(tracker, 1)
        job = (await tracker.client.submit(SPEC)).id
        await host.expect(Prewarm)
        await host.send(PrewarmReport(job, "failed", "no_space", "210 MB, and 5 MB are free"))
        status = await tracker.until(job, "partly")
        (failed,) = status.hosts
        assert (failed.name, failed.code) == ("host-2", "no_space")
        assert failed.reason == "210 MB, and 5 MB are free"

        assert (await tracker.client.act(job, "retry")).state == "running"
        await host.expect(Prewarm)
        assert (await tracker.client.act(job, "cancel")).state == "cancelled"
        while not (await host.expect(PrewarmEnd)).unpin:
            pass


async def test_a_job_outlives_the_tracker(tmp_path: Path) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2):
        await described(tracker, 1)
        job = (await tracker.client.submit(SPEC)).id

    async with running(tmp_path) as tracker, connected(tracker, 2) as host:
        assert (await tracker.client.show(job)).state == "running"
        await host.expect(Prewarm)


async def test_a_dry_run_files_nothing(tmp_path: Path) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2):
        await described(tracker, 1)
        answer = await tracker.client.submit(SPEC, dry_run=True)

        assert answer.id == ""
        assert answer.plan.dcs[0].host_bytes == 2 * (100 << 20) + 1000
        assert await tracker.client.list() == []


async def test_the_same_key_is_the_same_job(tmp_path: Path) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2):
        await described(tracker, 1)
        spec = msgspec.structs.replace(SPEC, key="rule web: v1")
        first, second = [await tracker.client.submit(spec) for _ in range(2)]

        assert (second.id, second.existing) == (first.id, True)


@pytest.mark.parametrize(
    ("fields", "status", "code", "said"),
    [
        ({"hosts": "role=none"}, 404, "no_hosts", "none of the 1 hosts is meant by 'role=none'"),
        ({"dcs": ["dc9"]}, 404, "no_hosts", "this tracker knows no hosts in dc9"),
        ({"proxies_only": True}, 404, "no_hosts", "this tracker knows no proxies"),
        ({"hosts": "we b"}, 400, "bad_request", "'we b' is no part of a selector"),
        ({"waves": [0.5, 0.1, 1.0]}, 400, "bad_request", "waves are growing shares"),
        ({"waves": [0.5]}, 400, "bad_request", "the last one is 100%"),
        ({"platform": "linux/s390x"}, 400, "bad_request", "has nothing for linux/s390x"),
    ],
)
async def test_what_cannot_be_done_is_said_in_words(
    tmp_path: Path, fields: dict[str, object], status: int, code: str, said: str
) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2):
        await described(tracker, 1)
        with pytest.raises(JobsError, match=said) as refused:
            await tracker.client.submit(msgspec.structs.replace(SPEC, **fields))

        assert (refused.value.status, refused.value.code) == (status, code)


async def test_a_deadline_that_cannot_hold_is_said_and_the_job_taken(tmp_path: Path) -> None:
    async with running(tmp_path) as tracker, connected(tracker, 2):
        await described(tracker, 1)
        spec = msgspec.structs.replace(SPEC, rate=1000, deadline_unix_s=4e9)
        late = msgspec.structs.replace(spec, deadline_unix_s=1.0)

        assert (await tracker.client.submit(spec)).plan.deadline_holds is True
        answer = await tracker.client.submit(late)
        assert answer.plan.deadline_holds is False
        assert "the deadline cannot hold" in answer.plan.warnings[0]
        assert (await tracker.client.show(answer.id)).deadline_missed


@pytest.mark.parametrize("token", ["", "0" * 64, "of some other cluster"])
async def test_nobody_without_the_token_learns_or_does_anything(tmp_path: Path, token: str) -> None:
    async with running(tmp_path, token=token) as tracker:
        for ask in (
            tracker.client.list(),
            tracker.client.show("j1"),
            tracker.client.submit(SPEC),
            tracker.client.act("j1", "cancel"),
        ):
            with pytest.raises(JobsError) as refused:
                await ask
            assert (refused.value.status, refused.value.code) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"spec": {"images": []}}', 400),
        (b'{"spec":' * 5000, 400),
        (b" " * (BODY_BYTES_MAX + 1), 413),
    ],
)
async def test_bodies_of_no_sense(tmp_path: Path, body: bytes, status: int) -> None:
    async with running(tmp_path) as tracker, aiohttp.ClientSession() as http:
        headers = {"Authorization": f"Bearer {operator_token(SECRET)}"}
        url = f"{tracker.admin}/api/v1/jobs"
        async with http.post(url, data=BytesIO(body), headers=headers) as answer:
            assert answer.status == status
            assert (await answer.json())["code"] == "bad_request"


@pytest.mark.parametrize("secret", [SECRET, COMING])
async def test_a_token_of_any_secret_that_is_believed_will_do(
    tmp_path: Path, secret: bytes
) -> None:
    async with running(tmp_path, token=operator_token(secret)) as tracker:
        assert await tracker.client.list() == []


@pytest.mark.parametrize("job", ["unknown", "..%2fetc", "J" * 100])
async def test_jobs_that_are_not_there(tmp_path: Path, job: str) -> None:
    async with running(tmp_path) as tracker:
        for ask in (tracker.client.show(job), tracker.client.act(job, "cancel")):
            with pytest.raises(JobsError) as refused:
                await ask
            assert (refused.value.status, refused.value.code) == (404, "not_found")
        with pytest.raises(JobsError):
            await tracker.client.act("j1", "explode")
        with pytest.raises(JobsError, match="hosts is one of"):
            await tracker.client.show("j1", hosts="some")
