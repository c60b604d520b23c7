"""Show who may read what: from a private registry itself, and through proxy and peer.

    python -m bench.access                # eleven minutes
    python -m bench.access http skopeo    # some of the clients
    python -m bench.access --clear

Two users, a private repository for each, a docker-registry with a token service, and one with
htpasswd, where each of them may read both; each client pulls both as
each of them, as somebody whom the registry does not know, and as nobody: what the registry itself
gives the mirrors are to give, cold and warm, and nothing else. Hosts have certificates, so that
layers go from one to the other; `--clear`: they have none, and all comes from the proxy. Then a
right is taken back, and the clock runs until the mirror refuses.
Docker asks the registry where a mirror refuses; by the path of a mirror it is refused
(docs/registries.md), which counts as no wrong refusal, and is told apart.
Writes `build/bench-access.json`; prints TARGET lines. Needs root and Debian packages.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import sys
import tarfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import aiohttp

from bench.access.clients import (
    HOST,
    Client,
    Plain,
    Podman,
    Skopeo,
    running_containerd,
)
from bench.access.engines import Docker, DockerByPath, running_cri, running_dockerd
from bench.access.registry import push, running_registry
from bench.access.rights import Htpasswd, Rights, Tokens
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.model.ids import HostId
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Upstream
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry_images import build_image
from tests.fakes.registry_rights import basic
from tests.process.identities import TestCa

OUT: Final = Path("build/bench-access.json")
DOCKER: Final = ("docker", "docker path")
CLIENTS: Final = ("http", "skopeo", "podman", "containerd", "cri", *DOCKER)
REFUSED_BY_PATH: Final = "docker path"
USERS: Final = ("", "mallory", "alice", "bob")
"""Nobody, and one whom the registry does not know, come first: to what no mirror has yet."""
REPOSITORIES: Final = ("alice/app", "bob/app")
LAYER_BYTES: Final = 3_000_000
WITHDRAWN_MAX_S: Final = 90.0
HOSTS: Final = ("tracker", "proxy", "peer", "another")
UPLOAD_BYTES_PER_S: Final = 4_000_000
"""Of the proxy, which on loopback would be done before hosts have met."""


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clients", nargs="*", default=list(CLIENTS))
    parser.add_argument("--clear", action="store_true", help="hosts without certificates")
    parsed = parser.parse_args()
    wanted, certified = parsed.clients, not parsed.clear
    rows, withdrawn_s, exchanged = [], 0.0, 0
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory()))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        clients = await _clients(stack, work, session, wanted)
        for rights in (Tokens(), Htpasswd()):
            async with running_registry(work / rights.kind, rights) as registry:
                for number, user in enumerate(("alice", "bob")):
                    image = build_image([_archive(number)])
                    given = await rights.given(session, user)
                    await push(session, registry, f"{user}/app", image, given)
                for client in clients:
                    lab = work / rights.kind / client.name
                    async with _mirrors(lab, registry, rights, certified) as (places, peers):
                        rows += await _pulls(client, rights, registry, places)
                        exchanged += sum(_from_peers(peer) for peer in peers)
                lab = work / rights.kind / "lab"
                async with _mirrors(lab, registry, rights, certified) as (places, _):
                    ended_s = await _withdrawn_s(rights, session, places["peer, warm"])
                    withdrawn_s = max(withdrawn_s, ended_s)
    return _told(rows, withdrawn_s, exchanged, certified=certified)


def _from_peers(peer: RunningPeer) -> int:
    """Bytes that it had of other hosts."""
    return peer.running.node.counters.received["dc"]


async def _clients(
    stack: AsyncExitStack, work: Path, session: aiohttp.ClientSession, wanted: list[str]
) -> list[Client]:
    clients: list[Client] = [Plain(session), Skopeo(work), Podman(work)]
    if "containerd" in wanted:
        clients.append(await stack.enter_async_context(running_containerd(work / "containerd")))
    if "cri" in wanted:
        clients.append(stack.enter_context(running_cri(work / "cri")))
    if set(wanted) & {*DOCKER}:
        dockerd = stack.enter_context(running_dockerd(work / "dockerd"))
        own = work / "dockerd" / "docker-here"
        clients += [Docker(dockerd, own), DockerByPath(dockerd, own)]
    return [client for client in clients if client.name in wanted]


def _archive(seed: int) -> bytes:
    """A layer that Podman can unpack."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("data")
        entry.size = LAYER_BYTES
        archive.addfile(entry, io.BytesIO(random_bytes(LAYER_BYTES, seed)))
    return packed.getvalue()


@asynccontextmanager
async def _mirrors(
    directory: Path, registry: str, rights: Rights, certified: bool
) -> AsyncIterator[tuple[dict[str, str], list[RunningPeer]]]:
    """A proxy and two peers that have nothing yet."""
    # dockerd names no registry: what it asks its mirrors for is of Docker Hub.
    upstreams = tuple(
        Upstream(host, f"http://{registry}", access="passthrough", allow_private=rights.places)
        for host in (HOST, "docker.io")
    )
    async with open_lab(directory, {}) as lab:
        ca = TestCa(lab.directory)
        if certified:
            lab.identities = {role: ca.directory(role, _host_id(role)) for role in HOSTS[:3]}
        lab.proxy_upload_rate = UPLOAD_BYTES_PER_S
        await lab.tracker()
        async with AsyncExitStack() as stack:
            settings = replace(lab.settings("proxy"), upstream=upstreams)
            proxy = await stack.enter_async_context(running_proxy(settings))
            lab.proxies.append(url_of(proxy.registry))
            peers = []
            for name in HOSTS[2:]:
                if certified:
                    one = ca.directory("peer", _host_id(name))
                    lab.identities = {**lab.identities, "peer": one}
                settings = replace(lab.settings(name), upstream=())
                peers.append(await stack.enter_async_context(running_peer(settings)))
            first, second = (str(peer.mirror) for peer in peers)
            places = {
                "peer, cold": first,
                "peer, warm": first,
                "another, warm": second,
                "proxy, warm": str(proxy.registry),
            }
            yield places, peers


def _host_id(name: str) -> HostId:
    return HostId(f"{HOSTS.index(name):032x}")


async def _pulls(
    client: Client, rights: Rights, registry: str, places: dict[str, str]
) -> list[dict[str, Any]]:
    rows = []
    print(f"{client.name} at a registry with {rights.kind}")
    print(f"{'as':<8} {'image':<10} {'registry':<9}", *places, sep="  ")
    for repository in REPOSITORIES:
        for user in USERS:
            row: dict[str, Any] = {"client": client.name, "as": user, "image": repository}
            row["rights"] = rights.kind
            row["registry"] = await client.pull(user, repository, registry=registry, mirror=None)
            for place, mirror in places.items():
                row[place] = await client.pull(user, repository, registry=registry, mirror=mirror)
            rows.append(row)
            said = [_word(row[key]).ljust(len(key)) for key in places]
            told = f"{user or 'nobody':<8} {repository:<10} {_word(row['registry']):<9}"
            print(told, *said, sep="  ", flush=True)
    return rows


def _word(let: bool) -> str:
    return "yes" if let else "no"


async def _withdrawn_s(rights: Rights, session: aiohttp.ClientSession, where: str) -> float:
    """How long a mirror goes on serving a user whose right was taken back, at most."""
    url = f"http://{where}/v2/alice/app/manifests/1?ns={HOST}"
    headers = {"Authorization": basic("alice")}
    async with session.get(url, headers=headers) as answer:
        assert answer.status == 200
    rights.withdraw("alice")
    began_s = served_s = time.monotonic()
    while time.monotonic() < began_s + WITHDRAWN_MAX_S:
        async with session.get(url, headers=headers) as answer:
            if answer.status != 200:
                break
            served_s = time.monotonic()
        await asyncio.sleep(0.2)
    return served_s - began_s


def _told(
    rows: list[dict[str, Any]], withdrawn_s: float, exchanged: int, *, certified: bool
) -> int:
    places = [key for key in rows[0] if "," in key]
    # Else a client that can pull nothing at all would look as if nothing were wrong.
    idle = {
        row["client"] for row in rows if f"{row['as']}/app" == row["image"] and not row["registry"]
    }
    if idle:
        print(f"no pull from the registry itself: {', '.join(sorted(idle))}", file=sys.stderr)
        return 1
    pairs = [(row, row["registry"], row[place]) for row in rows for place in places]
    reads = sum(mirror and not registry for _, registry, mirror in pairs)
    refused = [row["client"] for row, registry, mirror in pairs if registry and not mirror]
    by_path = refused.count(REFUSED_BY_PATH)
    print(f"{len(pairs)} pulls by mirrors; of Docker by path {by_path} refused, as documented")
    print(f"{exchanged / 1e6:.1f} MB of layers from other hosts")
    if bool(exchanged) != certified:
        print("layers go from host to host with certificates, and only then", file=sys.stderr)
        return 1
    targets = [
        Target("access.wrong_reads", reads, "<=", 0),
        Target("access.wrong_refusals", len(refused) - by_path, "<=", 0),
        Target("access.withdrawn_s", round(withdrawn_s, 1), "<=", 60),
    ]
    told = {"pulls": rows, "refused_by_path": by_path, "exchanged_bytes": exchanged}
    return 0 if publish(targets, told, OUT) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
