"""A release, from the push to the last host, with all that goes wrong on the way.

Two datacenters with a tracker, a proxy and hosts each, in this process:

- a push becomes a job in both datacenters, by a rule; `web-*` get the image, then runtimes pull it;
- a host without room fails a job of its own;
- a job at a low rate misses its deadline; `lab-1`, ready for it, loses its store;
- the registry refuses some requests, and says to one who pulls at a proxy that it grants 12 more;
- somebody sends what is no HTTP;
- a peer sends wrong chunks to `web-1`; `lonely` reaches no tracker, and its certificate ends soon;
- beside `web-1` a snapshotter shows an image, without a kernel: its counts are the script's.
"""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import aiohttp

from p2pdist.control.jobs_client import JobsClient
from p2pdist.demo.processes import free_ports
from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import digest_of
from p2pdist.model.jobs import JobImage, JobSpec
from p2pdist.model.members import Address
from p2pdist.oci.reference import parse_reference
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process.ca import issue_files, new_ca
from p2pdist.process.clock import unix_s
from p2pdist.process.identity import read_secret
from p2pdist.process.operator_token import operator_token
from p2pdist.registry.job_images import resolve_image
from p2pdist.registry.ports import Manifest
from p2pdist.registry_proxy.daemon import RunningProxy, running_proxy
from p2pdist.settings import Replicate, Settings
from p2pdist.tracker.daemon import RunningTracker
from tests.e2e.dashboards.lazy import ToldSnapshotter, told_snapshotter
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.evil import evil_peer
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault

MIB: Final = 1 << 20
STEP_S: Final = 40.0
SECRET: Final = "0123456789abcdef-notify"
RULE: Final = Replicate(name="web", images=("docker.io/library/app",), hosts="web-*")
PULLS_LEFT: Final = 12
REFUSED: Final = 10
RUDE: Final = 3
# A tenth of a second per chunk: it outlasts the test.
SLOW_BYTES_PER_S: Final = 100_000
SLOW_BYTES: Final = 24 * MIB
DIRECT_BYTES: Final = 2 * MIB
"""Pulled at a proxy, which reads it for that."""
DEADLINE_S: Final = 6.0


@dataclass
class Release:
    registry: FakeRegistry
    client: aiohttp.ClientSession
    lazy: ToldSnapshotter
    trackers: dict[str, RunningTracker] = field(default_factory=dict)
    proxies: dict[str, RunningProxy] = field(default_factory=dict)
    peers: dict[str, RunningPeer] = field(default_factory=dict)
    labs: dict[str, Lab] = field(default_factory=dict)
    jobs: dict[str, str] = field(default_factory=dict)
    """What a job is about -> its id."""
    delivered_bytes: int = 0
    """Of the blobs that runtimes pulled."""

    @property
    def targets(self) -> list[str]:
        admins = [tracker.admin for tracker in self.trackers.values()]
        admins += [proxy.admin for proxy in self.proxies.values()]
        admins += [peer.admin for peer in self.peers.values()]
        return [*map(str, admins), self.lazy.admin]

    # --- steps ----------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._pushed()
        await self._pulled()
        await self._refused()
        await self._rude()
        await self._attacked()
        await self._no_room()
        await self._late()
        self.lazy.read()

    async def _pushed(self) -> None:
        layers = [random_bytes(size, size) for size in (5 * MIB, 3 * MIB)]
        self.registry.add_image("library/app", "1", layers)
        event = {
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "repository": "library/app",
                "tag": "1",
            },
            "request": {"host": "docker.io"},
        }
        url = f"{url_of(self.proxies['dc1'].registry)}/p2pdist/v1/notifications"
        headers = {"Authorization": f"Bearer {SECRET}"}
        body = json.dumps({"events": [event]})
        async with self.client.post(url, data=body, headers=headers) as answer:
            assert answer.status == 202
        for dc, tracker in self.trackers.items():
            self.jobs[f"app {dc}"] = await _first_job_done(tracker)

    async def _pulled(self) -> None:
        for _ in range(3):
            for name in ("web-1", "web-2", "web-3", "web-4"):
                await self._pull(self.peers[name].mirror)
        # Nobody prewarmed this: from the registry, then from each other.
        self.registry.add_image("library/app", "2", [random_bytes(4 * MIB, 2)])
        for name in ("web-1", "web-2", "lonely"):
            await self._pull(self.peers[name].mirror, "2")

    async def _refused(self) -> None:
        self.registry.add_image("library/app", "limited", [random_bytes(DIRECT_BYTES, 22)])
        remaining = {"RateLimit-Remaining": f"{PULLS_LEFT};w=21600"}
        self.registry.faults["limited"] = Fault(headers=remaining)
        await self._pull(self.proxies["dc1"].registry, "limited")
        for number in range(REFUSED):
            tag = f"broken-{number}"
            self.registry.faults[tag] = Fault(status=500)
            url = f"{url_of(self.proxies['dc1'].registry)}/v2/library/app/manifests/{tag}"
            async with self.client.get(url) as answer:
                assert answer.status >= 400

    async def _rude(self) -> None:
        mirror = self.peers["web-1"].mirror
        for _ in range(RUDE):
            reader, writer = await asyncio.open_connection(mirror.host, mirror.port)
            writer.write(b"no request\r\n\r\n")
            await reader.read()
            writer.close()

    async def _attacked(self) -> None:
        layer = random_bytes(12 * MIB, 12)
        self.registry.add_image("library/app", "3", [layer])
        node = self.peers["web-1"].running.node
        secret = read_secret(self.labs["dc1"].keys.secret_file)
        victim = self.peers["web-1"].running.exchange_address
        async with evil_peer(victim, secret, node.keyring, digest_of(layer)) as evil:
            await self._pull(self.peers["web-1"].mirror, "3")
            await asyncio.wait_for(evil.down.wait(), STEP_S)

    async def _no_room(self) -> None:
        spec = JobSpec([await self._image("1")], hosts="small")
        self.jobs["small"] = await self._submit("small", spec, "partly")

    async def _late(self) -> None:
        self.registry.add_image("library/app", "slow", [random_bytes(SLOW_BYTES, 24)])
        await self._pull(self.peers["lab-1"].mirror, "slow")
        image, book = await self._image("slow"), self.trackers["dc1"].server.core.jobs
        spec = JobSpec(
            [image],
            hosts="lab-1;web-2",
            rate=SLOW_BYTES_PER_S,
            deadline_unix_s=unix_s() + DEADLINE_S,
        )
        self.jobs["slow"] = await self._submit("slow", spec, "running")
        job = book.jobs[self.jobs["slow"]]
        await until(lambda: job.tallies["dc1"].counts.get("ready") == 1)
        await until(lambda: book.counters.deadlines_missed_total == 1)
        store = self.labs["dc1"].directory / "lab-1" / "peer" / "store"
        for name in ("blobs", "small", "statements"):
            shutil.rmtree(store / name)
        await until(lambda: book.counters.withdrawn_total == 1)

    async def _pull(self, at: Address, tag: str = "1") -> None:
        blobs = await pull(self.client, url_of(at), tag)
        self.delivered_bytes += sum(len(body) for body in blobs.values())

    # --- jobs -----------------------------------------------------------------------------------

    async def _image(self, tag: str) -> JobImage:
        async def get(_: object, target: str) -> Manifest:
            url = f"{url_of(self.proxies['dc1'].registry)}/v2/library/app/manifests/{target}"
            async with self.client.get(url, raise_for_status=True) as answer:
                body = await answer.read()
                return Manifest(digest_of(body), answer.content_type, body)

        return await resolve_image(parse_reference(f"docker.io/library/app:{tag}"), get)

    async def _submit(self, key: str, spec: JobSpec, state: str) -> str:
        tracker = self.trackers["dc1"]
        secret = read_secret(self.labs["dc1"].keys.secret_file)
        jobs = JobsClient(url_of(tracker.admin), operator_token(secret), self.client)
        job_id = (await jobs.submit(spec)).id
        await until(lambda: tracker.server.core.jobs.jobs[job_id].state == state)
        return job_id


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(STEP_S):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def _first_job_done(tracker: RunningTracker) -> str:
    jobs = tracker.server.core.jobs.jobs
    await until(lambda: jobs and next(iter(jobs.values())).state == "done")
    return next(iter(jobs))


async def _knows(tracker: RunningTracker, count: int) -> None:
    hosts = tracker.server.core.hosts.values
    await until(lambda: sum(host.about is not None for host in hosts()) == count)


@asynccontextmanager
async def open_release(directory: Path) -> AsyncIterator[Release]:
    """All daemons are up and know each other; nothing has happened yet."""
    async with (
        FakeRegistry() as registry,
        aiohttp.ClientSession(auto_decompress=False) as client,
        open_lab(directory, {"docker.io": registry.url}) as root,
        told_snapshotter(root.settings("lazy")) as lazy,
    ):
        release = Release(registry, client, lazy)
        await _trackers(release, root)
        secret_file = directory / "notify-secret"
        secret_file.touch(mode=0o600)
        secret_file.write_text(SECRET)
        for dc, lab in release.labs.items():
            settings = lab.settings("proxy")
            if dc == "dc1":
                trackers = tuple(url_of(one.admin) for one in release.trackers.values())
                own = replace(settings.proxy, job_trackers=trackers, notify_secret_file=secret_file)
                settings = replace(settings, proxy=own, replicate=(RULE,))
            proxy = await lab.stack.enter_async_context(running_proxy(settings))
            release.proxies[dc] = proxy
            lab.proxies.append(url_of(proxy.registry))
        for name in ("web-1", "web-2", "lab-1"):
            await _peer(release, "dc1", name)
        await _peer(release, "dc1", "small", store_bytes=2 * MIB)
        nobody = (f"tcp://127.0.0.1:{free_ports(1)[0]}",)
        await _peer(release, "dc1", "lonely", trackers=nobody, days_left=3)
        for name in ("web-3", "web-4"):
            await _peer(release, "dc2", name)
        for dc, known in (("dc1", 5), ("dc2", 3)):
            await _knows(release.trackers[dc], known)
        yield release


async def _trackers(release: Release, root: Lab) -> None:
    addresses = [Address("127.0.0.1", port) for port in free_ports(2)]
    root.layer_index = True
    for own, other, dc in ((0, 1, "dc1"), (1, 0, "dc2")):
        lab = root.datacenter(dc)
        lab.federation = (url_of(addresses[other], "tcp"),)
        release.trackers[dc] = await lab.tracker(listen=addresses[own])
        release.labs[dc] = lab
    await until(lambda: all(t.server.core.grants.remotes for t in release.trackers.values()))


async def _peer(
    release: Release,
    dc: str,
    name: str,
    *,
    store_bytes: int = 0,
    trackers: tuple[str, ...] | None = None,
    days_left: int = 0,
) -> None:
    """`days_left`: of its certificate; 0: it has none."""
    lab = release.labs[dc]
    settings: Settings = lab.settings(name)
    settings = replace(settings, host=replace(settings.host, name=name))
    if store_bytes:
        settings = replace(settings, store=replace(settings.store, max_bytes=store_bytes))
    if trackers is not None:
        settings = replace(settings, peer=replace(settings.peer, trackers=trackers))
    if days_left:
        directory = lab.directory / f"identity-{name}"
        issue_files(
            new_ca(unix_s()), directory, IdentityRole.PEER, None, days=days_left, now_s=unix_s()
        )
        settings = replace(settings, peer=replace(settings.peer, identity_dir=directory))
    release.peers[name] = await lab.stack.enter_async_context(running_peer(settings))
