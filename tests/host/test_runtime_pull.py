"""What a runtime can answer when it is asked to pull: Docker over its socket, containerd by ctr."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from p2pdist.host.runtime_pull import ContainerdPuller, DockerPuller, RuntimePullError
from p2pdist.model.control import PrewarmImage
from p2pdist.model.ids import digest_of

DIGEST = digest_of(b"manifest")
IMAGE = PrewarmImage("docker.io", "library/app", "1", [DIGEST], [])
UNTAGGED = PrewarmImage("docker.io", "library/app", "", [DIGEST], [])
HOSTS_DIR = Path("/etc/containerd/certs.d")


@asynccontextmanager
async def docker(
    directory: Path, *lines: bytes, status: int = 200
) -> AsyncIterator[tuple[DockerPuller, list[dict[str, str]]]]:
    """An engine that answers every pull with these lines."""
    asked: list[dict[str, str]] = []

    async def create(request: web.Request) -> web.StreamResponse:
        asked.append(dict(request.query))
        answer = web.StreamResponse(status=status)
        await answer.prepare(request)
        for line in lines:
            await answer.write(line)
        return answer

    app = web.Application()
    app.router.add_post("/images/create", create)
    runner = web.AppRunner(app)
    await runner.setup()
    socket = directory / "docker.sock"
    await web.UnixSite(runner, str(socket)).start()
    try:
        yield DockerPuller(socket), asked
    finally:
        await runner.cleanup()


async def test_docker_is_asked_by_tag_or_by_digest(tmp_path: Path) -> None:
    async with docker(tmp_path, b'{"status":"Pulling"}\n{"status":"Done"}\n') as (puller, asked):
        await puller.pull(IMAGE)
        await puller.pull(UNTAGGED)

    assert asked == [
        {"fromImage": "library/app", "tag": "1"},
        {"fromImage": "library/app", "tag": DIGEST},
    ]


@pytest.mark.parametrize(
    ("lines", "status", "said"),
    [
        ([b'{"status":"Pulling"}\n', b'{"error":"no space left"}\n'], 200, "docker: no space left"),
        ([b'{"sta', b'tus":"x"}\n{"error":"cut"}'], 200, "docker: cut"),
        ([b'{"message":"no such image"}'], 404, 'docker answered 404: {"message":"no such image"}'),
        ([b"<html>"], 200, "docker sent what is no progress"),
        ([b"x" * (3 << 20)], 200, "docker sent a line without end"),
    ],
)
async def test_what_docker_refuses_is_said_in_its_words(
    tmp_path: Path, lines: list[bytes], status: int, said: str
) -> None:
    async with docker(tmp_path, *lines, status=status) as (puller, _):
        with pytest.raises(RuntimePullError) as refused:
            await puller.pull(IMAGE)

    assert str(refused.value) == said


async def test_docker_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RuntimePullError, match=r"docker at .*docker\.sock"):
        await DockerPuller(tmp_path / "docker.sock").pull(IMAGE)


async def test_docker_pulls_through_a_mirror_from_docker_hub_only(tmp_path: Path) -> None:
    other = PrewarmImage("ghcr.io", "a/b", "1", [DIGEST], [])
    with pytest.raises(RuntimePullError, match=r"of Docker Hub only, not of ghcr\.io"):
        await DockerPuller(tmp_path / "docker.sock").pull(other)


Ctr = Callable[[str], Path]


@pytest.fixture
def ctr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ctr:
    def make(script: str) -> Path:
        """A `ctr` that notes its arguments, then does as `script` says."""
        program = tmp_path / "bin" / "ctr"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n{script}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
        return tmp_path / "asked"

    return make


@pytest.mark.parametrize(
    ("image", "reference"),
    [(IMAGE, "docker.io/library/app:1"), (UNTAGGED, f"docker.io/library/app@{DIGEST}")],
)
async def test_containerd_pulls_through_the_hosts_files(
    ctr: Ctr, image: PrewarmImage, reference: str
) -> None:
    asked = ctr("exit 0")
    await ContainerdPuller(Path("/x.sock"), "k8s.io", HOSTS_DIR).pull(image)

    assert asked.read_text().split() == [
        *("--address", "/x.sock", "--namespace", "k8s.io"),
        *("images", "pull", "--hosts-dir", str(HOSTS_DIR), reference),
    ]


async def test_what_ctr_says_last_is_the_reason(ctr: Ctr) -> None:
    ctr("echo working >&2; echo 'ctr: not found' >&2; exit 1")
    with pytest.raises(RuntimePullError, match=r"^containerd: ctr: not found$"):
        await ContainerdPuller(None, "default", HOSTS_DIR).pull(IMAGE)


async def test_no_ctr_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimePullError, match="cannot run ctr"):
        await ContainerdPuller(None, "default", HOSTS_DIR).pull(IMAGE)
