"""`p2pdist prewarm` with an operator's certificate, at the admin port of a real tracker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.ca import ca as ca_command
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import explain
from p2pdist.cli.prewarm import prewarm
from p2pdist.process.host_identity import HostIdentity
from tests.process.identities import TestCa
from tests.tracker.servers import SECRET, TRACKER
from tests.tracker.test_job_api import SPEC
from tests.tracker.test_job_callers import OPERATOR, Api, api


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


@pytest.fixture
def required(ca: TestCa) -> HostIdentity:
    return ca.identity("tracker", TRACKER.host_id, required=True)


@pytest.fixture(autouse=True)
def nobody_is_at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("P2PDIST_IDENTITY", "P2PDIST_TRACKERS", "P2PDIST_CONFIG"):
        monkeypatch.delenv(name, raising=False)


async def asked(it: Api, *arguments: str) -> Result:
    argv = ["ls", "--tracker", it.url, *arguments]
    return await asyncio.to_thread(CliRunner().invoke, prewarm, argv)


def failed(result: Result) -> tuple[Exit, str, str]:
    assert result.exception is not None
    return explain(result.exception)


async def test_an_operator_acts_where_the_secret_is_nothing(
    tmp_path: Path, ca: TestCa, required: HostIdentity, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(ca.directory("operator", OPERATOR))
    secret = tmp_path / "cluster.secret"
    secret.write_bytes(SECRET)
    secret.chmod(0o600)
    async with api(tmp_path, required) as it:
        code, text, _ = failed(await asked(it, "--secret-file", str(secret)))
        assert code is Exit.DENIED
        assert "`p2pdist ca issue --role operator` makes one, and --identity DIR shows it" in text

        result = await asked(it, "--identity", directory)
        assert (result.exit_code, result.stdout) == (0, "no jobs\n")
        monkeypatch.setenv("P2PDIST_IDENTITY", directory)
        assert (await asked(it)).exit_code == 0
        monkeypatch.delenv("P2PDIST_IDENTITY")

        issue = ["issue", "--dir", str(ca.keep()), "--role", "operator"]
        made = CliRunner().invoke(ca_command, issue)
        assert made.exit_code == 0, made.output
        assert (tmp_path / ".config/p2pdist/operator/key.pem").stat().st_mode & 0o077 == 0
        assert (await asked(it)).exit_code == 0, "found where it lies without a word"


async def test_it_cancels_under_its_name(
    tmp_path: Path, ca: TestCa, required: HostIdentity, caplog: pytest.LogCaptureFixture
) -> None:
    directory = str(ca.directory("operator", OPERATOR))
    async with api(tmp_path, required) as it:
        job = (await it.client(ca.identity("operator", OPERATOR)).submit(SPEC)).id
        argv = ["cancel", job, "--tracker", it.url, "--identity", directory]
        result = await asyncio.to_thread(CliRunner().invoke, prewarm, argv)
        assert result.exit_code == 0, result.output
    changed: list[Any] = [r for r in caplog.records if r.getMessage() == "job.changed"]
    assert [record.fields["who"] for record in changed] == [f"operator {OPERATOR}"]


async def test_each_way_in_which_the_own_files_are_no_good(
    tmp_path: Path, ca: TestCa, required: HostIdentity
) -> None:
    async with api(tmp_path, required) as it:
        for directory, said in (
            (tmp_path / "nowhere", "No such file"),
            (ca.directory("operator", OPERATOR, begun_days=40), "expired 10 days ago"),
            (ca.directory("operator", OPERATOR, begun_days=-2), "not valid for another"),
            (ca.directory("peer", OPERATOR), "not for an operator"),
        ):
            code, text, hint = failed(await asked(it, "--identity", str(directory)))
            assert code is Exit.USAGE
            assert said in text
            assert "`p2pdist ca issue --role operator --out DIR` where the CA is" in hint
        both = ("--identity", str(tmp_path), "--secret-file", str(tmp_path / "s"))
        code, text, _ = failed(await asked(it, *both))
        assert (code, text[:40]) == (Exit.USAGE, "one of --identity and --secret-file: who")


async def test_each_way_in_which_the_other_end_is_none_to_believe(
    tmp_path: Path, ca: TestCa
) -> None:
    operator = ("--identity", str(ca.directory("operator", OPERATOR)))
    (tmp_path / "other").mkdir()
    other = TestCa(tmp_path / "other").identity("tracker", TRACKER.host_id)
    for number, (own, said) in enumerate((
        (None, "it speaks no TLS there"),
        (other, "the other end's certificate is not believed"),
        (ca.identity("proxy", TRACKER.host_id), "not for a tracker"),
    )):  # fmt: skip
        place = tmp_path / str(number)
        place.mkdir()
        async with api(place, own) as it:
            code, text, hint = failed(await asked(it, *operator))
        assert code is Exit.DENIED
        assert said in text
        assert "tracker.identity_dir" in hint
    code, text, _ = failed(await asked(it, *operator))  # it is not there any more
    assert (code, text.endswith("does not answer: connection refused")) == (Exit.UPSTREAM, True)


def test_other_certificates_need_a_place(ca: TestCa) -> None:
    result = CliRunner().invoke(ca_command, ["issue", "--dir", str(ca.keep()), "--role", "peer"])
    code, text, _ = failed(result)
    assert (code, text[:18]) == (Exit.USAGE, "--out is missing: ")
