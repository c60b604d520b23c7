"""Has this host's runtime pull an image through the mirror, so that it is unpacked there too.

Only where the operator of the host allowed it (`peer.into_runtime`).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

import aiohttp
import msgspec

from p2pdist.model.control import PrewarmImage

# The whole pull, and its longest silence: large layers unpack without a word.
PULL_S: Final = 1800.0
SILENCE_S: Final = 300.0
LINE_BYTES_MAX: Final = 1 << 20
DOCKER_SOCKET: Final = Path("/run/docker.sock")
CONTAINERD_SOCKET: Final = Path("/run/containerd/containerd.sock")


class RuntimePullError(Exception):
    """Why the runtime does not have it, in its own words where it has any."""


class RuntimePuller(Protocol):
    name: str

    async def pull(self, image: PrewarmImage) -> None:
        """Return once the runtime has it, unpacked. Raises RuntimePullError."""


class DockerPuller:
    """Engine API, `POST /images/create`: errors come in its stream, after a status of 200."""

    name = "docker"

    def __init__(self, socket: Path | None) -> None:
        self._socket = socket or DOCKER_SOCKET

    async def pull(self, image: PrewarmImage) -> None:
        if image.upstream != "docker.io":
            raise RuntimePullError(
                f"Docker asks its mirror for images of Docker Hub only, not of {image.upstream}"
            )
        tag = image.tag or image.manifests[0]
        asked = {"fromImage": image.repository, "tag": tag}
        connector = aiohttp.UnixConnector(str(self._socket))
        timeout = aiohttp.ClientTimeout(total=PULL_S, sock_read=SILENCE_S)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.post("http://docker/images/create", params=asked) as answer,
            ):
                if answer.status != 200:
                    text = (await answer.content.read(4096)).decode("utf-8", "replace")
                    raise RuntimePullError(f"docker answered {answer.status}: {text.strip()}")
                await _follow(answer.content)
        except TimeoutError:
            raise RuntimePullError("docker did not end its pull in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise RuntimePullError(f"docker at {self._socket}: {error}") from None


class _Progress(msgspec.Struct):
    error: str = ""


async def _follow(stream: aiohttp.StreamReader) -> None:
    """Read the progress, one JSON object a line, to its end."""
    rest = b""
    async for part in stream.iter_any():
        *lines, rest = (rest + part).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise RuntimePullError("docker sent a line without end")
        for line in lines:
            _check(line)
    _check(rest)


def _check(line: bytes) -> None:
    if not line.strip():
        return
    try:
        progress = msgspec.json.decode(line, type=_Progress)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RuntimePullError("docker sent what is no progress") from None
    if progress.error:
        raise RuntimePullError(f"docker: {progress.error}")


class ContainerdPuller:
    """`ctr images pull` with the hosts files that `p2pdist runtime` wrote.

    It unpacks for the snapshotter that ctr takes: `CONTAINERD_SNAPSHOTTER`, or overlayfs.
    """

    name = "containerd"

    def __init__(self, socket: Path | None, namespace: str, hosts_dir: Path) -> None:
        self._socket = socket or CONTAINERD_SOCKET
        self._namespace = namespace
        self._hosts_dir = hosts_dir

    async def pull(self, image: PrewarmImage) -> None:
        name = f"{image.upstream}/{image.repository}"
        reference = f"{name}:{image.tag}" if image.tag else f"{name}@{image.manifests[0]}"
        argv = ["ctr", "--address", str(self._socket), "--namespace", self._namespace]
        argv += ["images", "pull", "--hosts-dir", str(self._hosts_dir), reference]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise RuntimePullError(f"cannot run ctr: {error}") from None
        try:
            async with asyncio.timeout(PULL_S):
                _, said = await process.communicate()
        except TimeoutError:
            raise RuntimePullError("containerd did not end its pull in time") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode != 0:
            last = said.decode("utf-8", "replace").strip().splitlines()[-1:]
            raise RuntimePullError(f"containerd: {''.join(last)[:400]}")
