"""The job API at a tracker with a certificate: who may order jobs there, and what is said of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec.structs import replace

from p2pdist.control.jobs_client import NOT_BELIEVED, JobsClient, JobsError, TrackerTls
from p2pdist.model.ids import HostId
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.operator_token import operator_token
from p2pdist.process.revoked_hosts import judge, sign_revocation
from tests.process.identities import TestCa
from tests.tracker.servers import SECRET, TRACKER
from tests.tracker.test_job_api import SPEC, Tracker, connected, described
from tests.tracker.test_job_api import running as tracker_running

OPERATOR, PROXY = HostId("a" * 32), HostId("b" * 32)
TOKEN = operator_token(SECRET)
OF_RULE = replace(SPEC, key="rule web 1", note="rule web")


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


@dataclass
class Api:
    tracker: Tracker
    session: aiohttp.ClientSession
    url: str

    def client(
        self, own: HostIdentity | None = None, *, token: str = "", required: bool = True
    ) -> JobsClient:
        tls = None if own is None else TrackerTls(lambda: own.trackers, required)
        return JobsClient(self.url, token, self.session, tls)


@asynccontextmanager
async def api(tmp_path: Path, own: HostIdentity | None) -> AsyncIterator[Api]:
    """A tracker with one host."""
    async with (
        tracker_running(tmp_path, own=own) as tracker,
        connected(tracker, 2),
        aiohttp.ClientSession() as session,
    ):
        await described(tracker, 1)
        yield Api(tracker, session, tracker.admin)


def audited(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, Any]]]:
    found = [(r.getMessage(), getattr(r, "fields", {})) for r in caplog.records]
    return [(name, fields) for name, fields in found if "audit" in fields]


@pytest.mark.parametrize("required", [False, True])
async def test_an_operator_orders_and_is_named(
    tmp_path: Path, ca: TestCa, caplog: pytest.LogCaptureFixture, required: bool
) -> None:
    caplog.set_level(logging.ERROR, "p2pdist")  # what is audited is said all the same
    caplog.handler.setLevel(logging.NOTSET)
    operator = ca.identity("operator", OPERATOR)
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id, required=required)) as it:
        client = it.client(operator)
        claimed = replace(SPEC, filed_by="operator of another name", note="cli eve")
        job = (await client.submit(claimed)).id
        (listed,) = await client.list()
        assert listed.filed_by == (await client.show(job)).filed_by == f"operator {OPERATOR}"
        assert (await client.act(job, "cancel")).state == "cancelled"

        said = audited(caplog)
    assert [name for name, _ in said] == ["job.submitted", "job.changed"]
    for _, fields in said:
        assert fields["audit"] == "done"
        assert (fields["who"], fields["peer"]) == (f"operator {OPERATOR}", "127.0.0.1")
        assert fields["job"] == job
    assert said[0][1]["by"] == "cli eve"
    assert said[1][1]["wish"] == "cancel"


async def test_an_operator_who_was_revoked_orders_nothing(tmp_path: Path, ca: TestCa) -> None:
    """Nor with a token beside it, on a connection that stands."""
    own = ca.identity("tracker", TRACKER.host_id)
    async with api(tmp_path, own) as it:
        client = it.client(ca.identity("operator", OPERATOR), token=TOKEN)
        job = (await client.submit(SPEC)).id
        own.revoked.take(judge([sign_revocation(ca.ca, [OPERATOR], 1e9)], own.cas))

        assert await every_refusal(client, job) == {(403, "certificate_refused")}


async def test_a_tracker_that_was_revoked_is_asked_nothing(tmp_path: Path, ca: TestCa) -> None:
    operator = ca.identity("operator", OPERATOR)
    record = sign_revocation(ca.ca, [TRACKER.host_id], 1e9)
    operator.revoked.take(judge([record], operator.cas))
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id)) as it:
        with pytest.raises(JobsError, match="was revoked") as refused:
            await it.client(operator).list()
        assert refused.value.code == NOT_BELIEVED


async def every_refusal(client: JobsClient, job: str) -> set[tuple[int, str]]:
    """What is answered to all that can be asked."""
    found = set()
    for ask in (
        client.list(),
        client.show(job),
        client.submit(SPEC),
        client.submit(SPEC, dry_run=True),
        client.act(job, "cancel"),
    ):
        with pytest.raises(JobsError) as refused:
            await ask
        found.add((refused.value.status, refused.value.code))
    return found


async def test_who_is_no_operator_neither_orders_nor_reads(
    tmp_path: Path, ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id)) as it:
        job = (await it.client(ca.identity("operator", OPERATOR)).submit(SPEC)).id
        for role in ("peer", "tracker"):
            own = ca.identity(role, HostId("c" * 32))
            assert await every_refusal(it.client(own), job) == {(403, "wrong_role")}
            # The token as well: whoever shows a certificate is who it says.
            url, headers = it.url.replace("http", "https"), {"Authorization": f"Bearer {TOKEN}"}
            asking = it.session.get(f"{url}/api/v1/jobs", ssl=own.trackers, headers=headers)
            async with asking as answer:
                assert answer.status == 403
        client = it.client(ca.identity("peer", HostId("c" * 32)))
        with pytest.raises(JobsError, match="is for a peer, not for an operator; `p2pdist ca iss"):
            await client.list()
        assert [status.id for status in await it.client(token=TOKEN).list()] == [job]

    refused = [fields for name, fields in audited(caplog) if name == "job.refused"]
    assert [fields["who"] for fields in refused] == [f"peer {'c' * 32}"], "once for one network"
    assert refused[0]["audit"] == "refused"
    assert refused[0]["reason"] == "wrong_role"


async def test_a_proxy_sees_to_jobs_of_rules_alone(tmp_path: Path, ca: TestCa) -> None:
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id, required=True)) as it:
        client = it.client(ca.identity("proxy", PROXY))
        other = (await it.client(ca.identity("operator", OPERATOR)).submit(SPEC)).id
        assert await every_refusal(client, other) == {(403, "wrong_role")}
        with pytest.raises(JobsError, match=r"jobs of \[\[replicate\]\] rules alone"):
            await client.submit(replace(OF_RULE, into_runtime=True))

        job = (await client.submit(OF_RULE)).id
        assert (await client.show(job)).filed_by == f"proxy {PROXY}"
        assert (await client.act(job, "retry")).state == "running"
        assert (await client.act(job, "cancel")).state == "cancelled"


async def test_the_secret_orders_nothing_where_certificates_are_required(
    tmp_path: Path, ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id, required=True)) as it:
        job = (await it.client(ca.identity("operator", OPERATOR)).submit(SPEC)).id
        for token in (TOKEN, "0" * 64, ""):
            refused = await every_refusal(it.client(token=token), job)
            assert refused == {(403, "identity_required")}
        with pytest.raises(JobsError, match="ca issue --role operator` makes one, and --identity"):
            await it.client(token=TOKEN).list()

        for path in ("livez", "readyz", "metrics", "version", "api/v1/status"):
            async with it.session.get(f"{it.url}/{path}") as answer:
                assert answer.status == 200, "Prometheus and health checks go on in clear"
        (line,) = [fields for name, fields in audited(caplog) if name == "job.refused"]
        assert (line["who"], line["reason"]) == ("cluster secret", "identity_required")
        assert TOKEN not in caplog.text
        assert SECRET.decode() not in caplog.text


async def test_with_a_certificate_at_the_tracker_the_token_goes_on_working(
    tmp_path: Path, ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id)) as it:
        client = it.client(token=TOKEN)
        job = (await client.submit(replace(SPEC, filed_by="operator of my dreams"))).id
        assert (await client.show(job)).filed_by == ""
        assert await every_refusal(it.client(token="0" * 64), job) == {(401, "unauthorized")}

    (_, done), (_, refused) = audited(caplog)
    assert (done["who"], refused["who"]) == ("cluster secret", "nobody")


async def test_a_proxy_without_the_setting_shows_its_certificate_where_it_is_asked_for(
    tmp_path: Path, ca: TestCa
) -> None:
    proxy = ca.identity("proxy", PROXY)
    for required, filed_by in ((False, ""), (True, f"proxy {PROXY}")):
        place = tmp_path / str(required)
        place.mkdir()
        own = ca.identity("tracker", TRACKER.host_id, required=required)
        async with api(place, own) as it:
            client = it.client(proxy, token=TOKEN, required=False)
            assert (await client.show((await client.submit(OF_RULE)).id)).filed_by == filed_by


async def test_a_proxy_goes_back_to_its_token_when_the_tracker_has_no_certificate_any_more(
    tmp_path: Path, ca: TestCa
) -> None:
    async with api(tmp_path, None) as it:
        client = it.client(ca.identity("proxy", PROXY), token=TOKEN, required=False)
        client._in_tls = True
        with pytest.raises(JobsError, match="speaks no TLS"):
            await client.submit(OF_RULE)
        assert (await client.submit(OF_RULE)).id


async def why_not(client: JobsClient) -> str:
    """Why nothing was said to a tracker, or nothing heard of it."""
    with pytest.raises(JobsError) as refused:
        await client.list()
    assert (refused.value.status, refused.value.code) == (0, NOT_BELIEVED)
    return str(refused.value)


async def test_each_end_looks_at_the_other(tmp_path: Path, ca: TestCa) -> None:
    (tmp_path / "other").mkdir()
    stranger = TestCa(tmp_path / "other")
    operator = ca.identity("operator", OPERATOR)
    async with api(tmp_path, ca.identity("tracker", TRACKER.host_id)) as it:
        forged = stranger.identity("operator", OPERATOR)
        assert "certificate is not believed" in await why_not(it.client(forged))
        ended = ca.identity("operator", OPERATOR, begun_days=40)
        assert "our certificate has expired by the other" in await why_not(it.client(ended))
    async with api(tmp_path / "other", ca.identity("peer", HostId("c" * 32))) as it:
        text = await why_not(it.client(operator))
        assert f"it is for peer {'c' * 32}, not for a tracker" in text


async def test_a_forged_certificate_is_in_the_audit_log(
    tmp_path: Path, ca: TestCa, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "other").mkdir()
    own, forger = ca.identity("tracker", TRACKER.host_id), TestCa(tmp_path / "other")
    forged = forger.identity("operator", OPERATOR)
    forged.trackers.load_verify_locations(cadata=ca.ca.pem.decode())  # it takes ours
    async with api(tmp_path, own) as it:
        said = {await why_not(it.client(forged)) for _ in range(20)}
        assert all("does not believe the CA of our certificate" in text for text in said)
    ((name, fields),) = audited(caplog)
    assert (name, fields["audit"], fields["peer"]) == ("tls.refused", "refused", "127.0.0.1")


async def test_a_tracker_without_a_certificate_is_said_nothing(tmp_path: Path, ca: TestCa) -> None:
    async with api(tmp_path, None) as it:
        operator = ca.identity("operator", OPERATOR)
        assert "speaks no TLS" in await why_not(it.client(operator, token=TOKEN))


async def test_what_is_no_tracker_at_all_is_said_in_words() -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\0\0\0\x13not a p2pdist host\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, aiohttp.ClientSession() as session:
        with pytest.raises(JobsError, match=r"does not answer: what it says is no HTTP$"):
            await JobsClient(url, TOKEN, session).list()
