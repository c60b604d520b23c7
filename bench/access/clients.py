"""Clients that pull as somebody: a plain one, Skopeo, Podman, containerd."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Protocol

import aiohttp

from p2pdist.model.ids import digest_of
from p2pdist.oci.auth import parse_challenges
from tests.fakes.registry_rights import basic

HOST: Final = "registry.test"
PULL_S: Final = 60.0


class Client(Protocol):
    name: str

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        """Whether all of the image comes, as `user`, or as nobody: from the registry
        (`127.0.0.1:port`), or from a mirror of it, as the client goes about it."""
        ...


async def succeeded(*argv: str, env: dict[str, str] | None = None) -> bool:
    process = await asyncio.create_subprocess_exec(
        *argv,
        env={**os.environ, **(env or {})},
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(PULL_S):
            return await process.wait() == 0
    except TimeoutError:
        process.kill()
        await process.wait()
        return False


class Plain:
    """As the specification has it: a challenge is answered with a token, or with Basic."""

    name = "http"

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        base = f"http://{mirror or registry}/v2/{repository}"
        query = f"?ns={HOST}" if mirror else ""
        body = await self._get(f"{base}/manifests/1{query}", user)
        if body is None:
            return False
        manifest = json.loads(body)
        for blob in (manifest["config"], *manifest["layers"]):
            data = await self._get(f"{base}/blobs/{blob['digest']}{query}", user)
            if data is None or digest_of(data) != blob["digest"]:
                return False
        return True

    async def _get(self, url: str, user: str) -> bytes | None:
        headers = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        async with self._session.get(url, headers=headers) as answer:
            if answer.status == 200:
                return await answer.read()
            challenges = parse_challenges(answer.headers.getall("WWW-Authenticate", ()))
        for challenge in challenges if user else ():
            given = basic(user)
            if challenge.scheme == "bearer":
                query = {key: challenge.params[key] for key in ("service", "scope")}
                realm, sent = challenge.params["realm"], {"Authorization": given}
                async with self._session.get(realm, params=query, headers=sent) as sold:
                    if sold.status != 200:
                        return None
                    given = f"Bearer {(await sold.json())['token']}"
            async with self._session.get(url, headers={**headers, "Authorization": given}) as got:
                return await got.read() if got.status == 200 else None
        return None


class _ContainersImage:
    name = ""

    def __init__(self, work: Path) -> None:
        self._work = work / self.name
        self._work.mkdir()
        (self._work / "policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')

    def _prepare(self, user: str, registry: str, mirror: str | None) -> dict[str, str]:
        config = self._work / "registries.conf"
        source = f'prefix = "{HOST}"\nlocation = "{"127.0.0.1:1" if mirror else registry}"\n'
        text = f"[[registry]]\n{source}insecure = true\n"
        if mirror:
            text += f'[[registry.mirror]]\nlocation = "{mirror}/{HOST}"\ninsecure = true\n'
        config.write_text(text)
        word = basic(user).partition(" ")[2]
        auths = {mirror or registry: {"auth": word}, HOST: {"auth": word}} if user else {}
        (self._work / "auth.json").write_text(json.dumps({"auths": auths}))
        return {
            "CONTAINERS_REGISTRIES_CONF": str(config),
            "REGISTRY_AUTH_FILE": str(self._work / "auth.json"),
            "TMPDIR": str(self._work),
        }


class Skopeo(_ContainersImage):
    name = "skopeo"

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        env, target = self._prepare(user, registry, mirror), self._work / "image"
        shutil.rmtree(target, ignore_errors=True)
        options = ["--policy", str(self._work / "policy.json")]
        options += ["--registries-conf", env["CONTAINERS_REGISTRIES_CONF"]]
        image = f"docker://{HOST}/{repository}:1"
        return await succeeded("skopeo", *options, "copy", image, f"dir:{target}", env=env)


class Podman(_ContainersImage):
    name = "podman"

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        env = self._prepare(user, registry, mirror)
        store = ["--root", str(self._work / "root"), "--runroot", str(self._work / "run")]
        podman = ["podman", *store, "--storage-driver", "vfs", "--events-backend", "none"]
        policy = ["--signature-policy", str(self._work / "policy.json")]
        image = f"{HOST}/{repository}:1"
        await succeeded(*podman, "rmi", "--all", "--force", env=env)
        return await succeeded(*podman, "pull", "--quiet", *policy, image, env=env)


def lead(certs: Path, where: str) -> None:
    """Have a containerd whose `config_path` this is look there for all that the registry has."""
    hosts = certs / HOST / "hosts.toml"
    hosts.parent.mkdir(parents=True, exist_ok=True)
    text = f'server = "http://{where}"\n[host."http://{where}"]\n'
    hosts.write_text(f'{text}  capabilities = ["pull", "resolve"]\n')


class Containerd:
    """Asked with `ctr`; each pull has a namespace of its own, which shares no content."""

    name = "containerd"

    def __init__(self, work: Path, socket: Path) -> None:
        self._work = work
        self._socket = socket
        self._number = 0

    async def pull(self, user: str, repository: str, *, registry: str, mirror: str | None) -> bool:
        self._number += 1
        hosts = self._work / f"certs{self._number}"
        lead(hosts, mirror or registry)
        who = ["--user", f"{user}:{user}-secret"] if user else []
        ctr = ["ctr", "--address", str(self._socket), "--namespace", f"n{self._number}"]
        fetch = ["content", "fetch", "--hosts-dir", str(hosts), *who]
        return await succeeded(*ctr, *fetch, f"{HOST}/{repository}:1")


def _configured(work: Path) -> Path:
    work.mkdir()
    config = work / "config.toml"
    config.write_text(
        'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
        f'root = "{work}/root"\nstate = "{work}/state"\n'
        '[plugins."io.containerd.metadata.v1.bolt"]\n  content_sharing_policy = "isolated"\n'
    )
    return config


@asynccontextmanager
async def running_containerd(work: Path) -> AsyncIterator[Containerd]:
    config, socket = _configured(work), work / "c.sock"
    with (work / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "containerd", "--config", str(config), "--address", str(socket), stdout=log, stderr=log
        )
    try:
        async with asyncio.timeout(20):
            while True:
                if await succeeded("ctr", "--address", str(socket), "version"):
                    break
                await asyncio.sleep(0.1)
        yield Containerd(work, socket)
    finally:
        process.terminate()
        await process.wait()
