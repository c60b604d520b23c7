"""Show who may read what: from a private registry itself, and through proxy and peer.

    python -m bench.access                # three minutes
    python -m bench.access http skopeo    # some of the clients

Two users, a private repository for each, a docker-registry with tokens; each client pulls both as
each of them, as somebody whom the registry does not know, and as nobody: what the registry itself
gives the mirrors are to give, cold and warm, and nothing else. Then a right is taken back, and the
clock runs until the mirror refuses.
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
from bench.access.registry import Tokens, push, running_registry
from bench.targets import publish
from p2pdist.demo.report import Target
from p2pdist.model.private_places import parse_private_place
from p2pdist.peer.daemon import running_peer
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Upstream
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.pulling import random_bytes
from tests.fakes.registry_images import build_image
from tests.fakes.registry_rights import basic

OUT: Final = Path("build/bench-access.json")
CLIENTS: Final = ("http", "skopeo", "podman", "containerd")
USERS: Final = ("", "mallory", "alice", "bob")
"""Nobody, and one whom the registry does not know, come first: to what no mirror has yet."""
REPOSITORIES: Final = ("alice/app", "bob/app")
LAYER_BYTES: Final = 3_000_000
WITHDRAWN_MAX_S: Final = 90.0


async def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clients", nargs="*", default=list(CLIENTS))
    wanted = parser.parse_args().clients
    async with AsyncExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory()))
        tokens = Tokens("bench-registry")
        tokens.may = {"alice": {"alice/app"}, "bob": {"bob/app"}}
        registry = await stack.enter_async_context(running_registry(work, tokens))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        for number, user in enumerate(("alice", "bob")):
            image = build_image([_archive(number)])
            token = await _token(session, registry, user)
            await push(session, registry, f"{user}/app", image, token)
        clients: list[Client] = [Plain(session), Skopeo(work), Podman(work)]
        clients.append(await stack.enter_async_context(running_containerd(work / "containerd")))
        clients = [client for client in clients if client.name in wanted]
        rows = []
        for client in clients:
            async with _mirrors(work / client.name / "lab", registry, tokens) as places:
                rows += await _pulls(client, registry.removeprefix("http://"), places)
        async with _mirrors(work / "lab", registry, tokens) as places:
            withdrawn_s = await _withdrawn_s(tokens, session, places["peer, warm"])
    return _told(rows, withdrawn_s)


def _archive(seed: int) -> bytes:
    """A layer that Podman can unpack."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        entry = tarfile.TarInfo("data")
        entry.size = LAYER_BYTES
        archive.addfile(entry, io.BytesIO(random_bytes(LAYER_BYTES, seed)))
    return packed.getvalue()


async def _token(session: aiohttp.ClientSession, registry: str, user: str) -> str:
    async with session.get(f"{registry}/v2/") as answer:
        realm = answer.headers["WWW-Authenticate"].split('"')[1]
    query = {"service": "bench-registry", "scope": f"repository:{user}/app:pull,push"}
    headers = {"Authorization": basic(user)}
    async with session.get(realm, params=query, headers=headers) as sold:
        return str((await sold.json())["token"])


@asynccontextmanager
async def _mirrors(directory: Path, registry: str, tokens: Tokens) -> AsyncIterator[dict[str, str]]:
    """A proxy and a peer that have nothing yet."""
    place = parse_private_place(tokens.address)
    upstream = Upstream(HOST, registry, access="passthrough", allow_private=(place,))
    async with open_lab(directory, {}) as lab:
        await lab.tracker()
        async with running_proxy(replace(lab.settings("proxy"), upstream=(upstream,))) as proxy:
            lab.proxies.append(url_of(proxy.registry))
            async with running_peer(replace(lab.settings("peer"), upstream=())) as peer:
                yield {
                    "peer, cold": str(peer.mirror),
                    "peer, warm": str(peer.mirror),
                    "proxy, warm": str(proxy.registry),
                }


async def _pulls(client: Client, registry: str, places: dict[str, str]) -> list[dict[str, Any]]:
    rows = []
    print(f"{client.name:<11} {'as':<8} {'image':<10} {'registry':<9}", *places, sep="  ")
    for repository in REPOSITORIES:
        for user in USERS:
            row: dict[str, Any] = {"client": client.name, "as": user, "image": repository}
            row["registry"] = await client.pull(registry, user, repository, mirror=False)
            for place, where in places.items():
                row[place] = await client.pull(where, user, repository, mirror=True)
            rows.append(row)
            said = [_word(row[key]).ljust(len(key)) for key in places]
            who = user or "nobody"
            told = f"{'':<11} {who:<8} {repository:<10} {_word(row['registry']):<9}"
            print(told, *said, sep="  ", flush=True)
    return rows


def _word(let: bool) -> str:
    return "yes" if let else "no"


async def _withdrawn_s(tokens: Tokens, session: aiohttp.ClientSession, where: str) -> float:
    """How long a mirror goes on serving a user whose right was taken back, at most."""
    url = f"http://{where}/v2/alice/app/manifests/1?ns={HOST}"
    headers = {"Authorization": basic("alice")}
    async with session.get(url, headers=headers) as answer:
        assert answer.status == 200
    tokens.may["alice"] = set()
    began_s = served_s = time.monotonic()
    while time.monotonic() < began_s + WITHDRAWN_MAX_S:
        async with session.get(url, headers=headers) as answer:
            if answer.status != 200:
                break
            served_s = time.monotonic()
        await asyncio.sleep(0.2)
    return served_s - began_s


def _told(rows: list[dict[str, Any]], withdrawn_s: float) -> int:
    places = [key for key in rows[0] if "," in key]
    # Else a client that can pull nothing at all would look as if nothing were wrong.
    idle = {
        row["client"] for row in rows if f"{row['as']}/app" == row["image"] and not row["registry"]
    }
    if idle:
        print(f"no pull from the registry itself: {', '.join(sorted(idle))}", file=sys.stderr)
        return 1
    pairs = [(row["registry"], row[place]) for row in rows for place in places]
    reads = sum(mirror and not registry for registry, mirror in pairs)
    refusals = sum(registry and not mirror for registry, mirror in pairs)
    targets = [
        Target("access.wrong_reads", reads, "<=", 0),
        Target("access.wrong_refusals", refusals, "<=", 0),
        Target("access.withdrawn_s", round(withdrawn_s, 1), "<=", 60),
    ]
    return 0 if publish(targets, {"pulls": rows}, OUT) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
