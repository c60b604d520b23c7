"""`p2pdist replicas` against job APIs and a registry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.prewarm import prewarm
from p2pdist.cli.replicas import replicas
from tests.fakes.job_api import FakeJobApi
from tests.fakes.registry import FakeRegistry

SECRET = b"a secret of the cluster"


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        registry.add_image("library/app", "latest", [b"one"])
        yield registry


@pytest.fixture
async def api() -> AsyncIterator[FakeJobApi]:
    async with FakeJobApi(SECRET, ("dc1", "dc2")) as api:
        yield api


@pytest.fixture
def options(registry: FakeRegistry, api: FakeJobApi, tmp_path: Path) -> list[str]:
    secret_file = tmp_path / "cluster.secret"
    secret_file.write_bytes(SECRET)
    secret_file.chmod(0o600)
    where = ["--tracker", api.url, "--endpoint", registry.url]
    return ["app", *where, "--secret-file", str(secret_file)]


async def ask(options: list[str]) -> Result:
    return await asyncio.to_thread(CliRunner().invoke, replicas, options)


async def test_a_new_push_shows_who_has_it_and_who_waits(
    registry: FakeRegistry, api: FakeJobApi, options: list[str]
) -> None:
    await asyncio.to_thread(CliRunner().invoke, prewarm, [*options, "--detach"])
    api.finish("job1")
    before = await ask(options)
    registry.add_image("library/app", "latest", [b"two"])
    await asyncio.to_thread(CliRunner().invoke, prewarm, [*options, "--detach"])
    api.ready["job2"].add("dc2")

    after = await ask([*options, "-o", "json"])

    assert before.exit_code == Exit.DONE, before.output
    assert before.stdout.count("in step") == 2
    assert after.exit_code == Exit.PARTIAL
    told = json.loads(after.stdout)
    assert told["image"] == "docker.io/library/app:latest"
    assert [(row["dc"], row["state"]) for row in told["dcs"]] == [
        ("dc1", "coming"),
        ("dc2", "in step"),
    ]
    assert told["dcs"][0]["digest"] == api.digests[0]
    assert told["dcs"][1]["digest"] == told["digest"] == api.digests[1]


async def test_an_image_without_jobs_is_nowhere(options: list[str]) -> None:
    result = await ask(options)

    assert result.exit_code == Exit.PARTIAL
    assert "no job has brought it anywhere" in result.stdout
