"""Operators' certificates, renewed at a tracker's admin port; the asking end is tried here, too."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.control.operator_renewal import NotRenewed, renewed
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address
from p2pdist.model.operator_renewal import PATH, WARN_S, due
from p2pdist.process import clock
from p2pdist.process.admin import AdminServer
from p2pdist.process.certificates import DAY_S
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.requests import new_request
from p2pdist.process.revoked_hosts import judge, sign_revocation
from p2pdist.tracker.job_callers import JobCallers
from p2pdist.tracker.operator_renewing import RenewalHttp
from p2pdist.tracker.renewing import Renewer
from tests.fakes.secrets import only
from tests.process.identities import TestCa
from tests.tracker.servers import TRACKER

OPERATOR = HostId("e" * 32)


class Tracker:
    """An admin port, and nothing behind it but who renews."""

    def __init__(self, ca: TestCa, *, signs: bool = True) -> None:
        self.own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
        self.renewer = Renewer(ca.keep(), self.own) if signs else None
        callers = JobCallers(lambda: only(b"a cluster secret of ours"), self.own)
        self.admin = AdminServer(
            Address("127.0.0.1", 0),
            status=dict,
            samples=list,
            ready=dict,
            routes=[RenewalHttp(callers, self.renewer).route()],
            tls=lambda: self.own.current.server,
        )
        self.url = ""

    async def __aenter__(self) -> Tracker:
        self.url = f"http://{await self.admin.start()}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.admin.close()


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


def files_of(own: HostIdentity) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in own.directory.iterdir()}


async def ask(
    own: HostIdentity, session: aiohttp.ClientSession, *urls: str, now_s: float | None = None
) -> HostIdentity:
    return await renewed(own, urls, session, now_s=clock.unix_s() if now_s is None else now_s)


async def test_the_next_one_is_for_the_same_operator_and_lies_in_its_place(
    ca: TestCa, session: aiohttp.ClientSession, caplog: pytest.LogCaptureFixture
) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    before = files_of(own)
    async with Tracker(ca) as tracker:
        with caplog.at_level(logging.INFO):
            found = await ask(own, session, tracker.url)

    assert found.identity == own.identity
    assert found.says.ends_s > own.says.ends_s + 20 * DAY_S
    after = files_of(own)
    assert after.keys() == before.keys()
    assert after["key.pem"] != before["key.pem"]
    assert after["ca.pem"] == before["ca.pem"]
    assert caplog.text.count("renewal.signed") == 1
    assert tracker.renewer is not None
    assert (tracker.renewer.signed_total, tracker.renewer.refused_total) == (1, 0)


async def test_a_tracker_that_does_not_answer_or_has_no_ca_is_passed_over(
    ca: TestCa, session: aiohttp.ClientSession
) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    async with Tracker(ca, signs=False) as other, Tracker(ca) as tracker:
        found = await ask(own, session, "http://127.0.0.1:1", other.url, tracker.url)
        assert found.says.ends_s > own.says.ends_s

        with pytest.raises(NotRenewed, match=r"no CA to sign with \(tracker.ca_dir\)"):
            await ask(found, session, "http://127.0.0.1:1", other.url)


@pytest.mark.parametrize(
    ("role", "begun_days", "says"),
    [
        ("operator", 10.0, "good for longer than half of its life"),
        ("proxy", 25.0, "certificates of operators are renewed here"),
        ("peer", 25.0, "not for an operator"),
    ],
)
async def test_who_is_not_to_have_another_one_is_refused(
    ca: TestCa,
    session: aiohttp.ClientSession,
    caplog: pytest.LogCaptureFixture,
    role: str,
    begun_days: float,
    says: str,
) -> None:
    own = ca.identity(role, OPERATOR, begun_days=begun_days)
    before = files_of(own)
    with caplog.at_level(logging.INFO):
        async with Tracker(ca) as tracker:
            with pytest.raises(NotRenewed, match=says):
                await ask(own, session, tracker.url)

    assert files_of(own) == before
    assert tracker.renewer is not None
    assert (tracker.renewer.signed_total, tracker.renewer.refused_total) == (0, 1)
    assert caplog.text.count("renewal.refused") == 1


async def test_one_that_was_revoked_is_not_renewed(
    ca: TestCa, session: aiohttp.ClientSession
) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    async with Tracker(ca) as tracker:
        record = sign_revocation(ca.ca, [OPERATOR], clock.unix_s())
        tracker.own.current.revoked.take(judge([record], tracker.own.current.cas))
        with pytest.raises(NotRenewed, match="revoked"):
            await ask(own, session, tracker.url)


async def test_who_shows_nothing_gets_nothing(ca: TestCa, session: aiohttp.ClientSession) -> None:
    async with Tracker(ca) as tracker:
        request = await asyncio.to_thread(new_request)
        async with session.post(tracker.url + PATH, data=request.der) as answer:
            assert answer.status == 401
            assert (await answer.json())["certificate"] == ""


async def test_too_long_a_request_is_refused(ca: TestCa, session: aiohttp.ClientSession) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    async with Tracker(ca) as tracker:
        url = tracker.url.replace("http", "https") + PATH
        async with session.post(url, data=b"x" * 3000, ssl=own.trackers) as answer:
            assert answer.status == 403
            assert "a request of" in (await answer.json())["reason"]


async def test_two_commands_do_not_put_theirs_there_at_once(
    ca: TestCa, session: aiohttp.ClientSession
) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    fd = os.open(own.directory, os.O_RDONLY)
    async with Tracker(ca) as tracker:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(NotRenewed, match="another command"):
            await ask(own, session, tracker.url)
        os.close(fd)
        assert (await ask(own, session, tracker.url)).says.ends_s > own.says.ends_s


async def test_where_nothing_can_be_written_nobody_is_asked(
    ca: TestCa, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = ca.identity("operator", OPERATOR, begun_days=25)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(NotRenewed, match="cannot be written"):
        await ask(own, session, "http://127.0.0.1:1")


def test_it_is_due_in_the_last_third_of_its_life() -> None:
    assert not due(0.0, 30 * DAY_S, 19 * DAY_S)
    assert due(0.0, 30 * DAY_S, 20 * DAY_S)
    assert not due(0.0, 30 * DAY_S, 30 * DAY_S)  # what has ended nobody takes
    assert WARN_S < 10 * DAY_S  # there are tries before its owner is told
