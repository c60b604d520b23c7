"""Prewarm through the real daemons of one process: tracker, proxy, peers, and the job API."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import msgspec
import pytest

from p2pdist.control.jobs_client import JobsClient
from p2pdist.errors import StoreError
from p2pdist.model.control import BlobRef, Prewarm, PrewarmEnd, PrewarmImage
from p2pdist.model.ids import digest_of
from p2pdist.model.jobs import HostStatus, JobSpec, JobState, JobStatus
from p2pdist.oci.reference import parse_reference
from p2pdist.peer.daemon import RunningPeer, running_peer
from p2pdist.process.operator_token import operator_token
from p2pdist.registry.job_images import resolve_image
from p2pdist.registry.ports import Manifest
from p2pdist.tracker.daemon import RunningTracker
from tests.fakes.cluster import Lab, open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry, Fault

DEADLINE_S = 50.0
"""A proof that a busy machine delays counts as missing; tries follow after 2, 8 and 30 s."""
LAYERS = [random_bytes(size, seed) for seed, size in enumerate((3_000_000, 1_200_000, 900))]


@dataclass
class Scene:
    lab: Lab
    registry: FakeRegistry
    tracker: RunningTracker
    http: aiohttp.ClientSession
    jobs: JobsClient

    async def spec(self) -> JobSpec:
        async def get(_: object, target: str) -> Manifest:
            url = f"{self.lab.proxies[0]}/v2/library/app/manifests/{target}"
            async with self.http.get(url, raise_for_status=True) as answer:
                body = await answer.read()
                return Manifest(digest_of(body), answer.content_type, body)

        image = await resolve_image(parse_reference("docker.io/library/app:1"), get)
        return JobSpec([image])

    async def known(self, hosts: int) -> None:
        core = self.tracker.server.core
        async with asyncio.timeout(DEADLINE_S):
            while sum(host.about is not None for host in core.hosts.values()) < hosts:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def until(self, job: str, *states: JobState) -> JobStatus:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                status = await self.jobs.show(job, hosts="all")
                if status.state in states:
                    return status
                await asyncio.sleep(0.05)

    async def host(self, job: str, name: str) -> HostStatus:
        return next(h for h in (await self.jobs.show(job, hosts="all")).hosts if h.name == name)


@asynccontextmanager
async def scene(directory: Path) -> AsyncIterator[Scene]:
    async with (
        FakeRegistry() as registry,
        aiohttp.ClientSession(auto_decompress=False) as http,
        open_lab(directory, {"docker.io": registry.url}) as lab,
    ):
        registry.add_image("library/app", "1", LAYERS)
        tracker = await lab.tracker()
        await lab.proxy()
        secret = lab.keys.secret_file.read_bytes().strip()
        yield Scene(
            lab,
            registry,
            tracker,
            http,
            JobsClient(url_of(tracker.admin), operator_token(secret), http),
        )


@asynccontextmanager
async def peer(scene: Scene, name: str, **store: int) -> AsyncIterator[RunningPeer]:
    settings = scene.lab.settings(name)
    settings = replace(
        settings,
        host=replace(settings.host, name=name, labels=("role=web",)),
        store=replace(settings.store, **store),
    )
    async with running_peer(settings) as running:
        yield running


async def test_a_job_puts_an_image_on_its_hosts_and_pulls_then_fetch_nothing(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as it, peer(it, "a") as first, peer(it, "b") as second:
        await it.known(3)
        spec = msgspec.structs.replace(await it.spec(), hosts="role=web")
        answer = await it.jobs.submit(spec)
        assert answer.plan.dcs[0].outside_bytes >= sum(map(len, LAYERS))
        status = await it.until(answer.id, "done")

        states = {host.name: host.state for host in status.hosts}
        assert states == {"a": "ready", "b": "ready"}
        assert it.registry.payload_total <= 1.05 * sum(map(len, LAYERS)) + 20_000
        assert (status.dcs[0].proxies, status.dcs[0].proxies_ready) == (1, 1)
        before = dict(first.running.node.counters.received)
        await pull(it.http, url_of(first.mirror))
        assert dict(first.running.node.counters.received) == before
        assert second.running.store.pinned_bytes() == 4_200_000


async def test_a_store_that_is_wiped_below_the_daemon_is_found_out_and_filled_again(
    tmp_path: Path,
) -> None:
    async with scene(tmp_path) as it, peer(it, "a") as first:
        await it.known(2)
        job = (await it.jobs.submit(await it.spec())).id
        await it.until(job, "done")
        # The job is over: proofs are rare then, so an operator has the hosts looked at again.
        store = it.lab.directory / "a" / "peer" / "store"
        for name in ("blobs", "small", "statements"):
            shutil.rmtree(store / name)
        again = (await it.jobs.submit(await it.spec())).id
        status = await it.until(again, "done", "partly")

        assert status.state == "done"
        assert len(await pull(it.http, url_of(first.mirror))) == 4
        counters = it.tracker.server.core.jobs.counters
        assert counters.proofs_wrong_total >= 1
        data = list(store.glob("blobs/*/*/*/data"))
        assert sorted(path.stat().st_size for path in data) == [1_200_000, 3_000_000]


async def test_a_host_without_room_says_so_before_it_fetches_a_byte(tmp_path: Path) -> None:
    async with (
        scene(tmp_path) as it,
        peer(it, "small", max_bytes=2_000_000) as small,
        peer(it, "b"),
    ):
        await it.known(3)
        job = (await it.jobs.submit(await it.spec())).id
        status = await it.until(job, "partly")

        (failed,) = [host for host in status.hosts if host.state == "failed"]
        assert (failed.name, failed.code) == ("small", "no_space")
        assert failed.reason == "4.2 MB are missing, 2.0 MB fit"
        assert small.running.node.core.bulk.received_bytes == 0


async def test_room_for_all_of_a_job_is_kept_before_a_byte_comes(tmp_path: Path) -> None:
    """Two jobs that came at once used to find the same room."""
    async with scene(tmp_path) as it, peer(it, "a", max_bytes=6_000_000) as first:
        store, orders = first.running.store, first.running.orders
        image = (await it.spec()).images[0]
        platform = image.platforms[0]
        for layer in map(digest_of, LAYERS):
            it.registry.faults[layer] = Fault(hang=True)
        refs = [BlobRef(blob.digest, blob.size) for blob in platform.blobs]
        name = parse_reference("docker.io/library/app").name
        wanted = PrewarmImage(name.upstream, name.repository, "", platform.manifests, refs)

        orders.put(Prewarm("one", [wanted]))
        async with asyncio.timeout(DEADLINE_S):
            while await store.room() > 1_800_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not store.blobs()
        with pytest.raises(StoreError):
            async with store.reserve({digest_of(b"of another job"): 2_000_000}):
                pytest.fail("it has the same room")

        orders.put(PrewarmEnd("one", unpin=True))
        async with asyncio.timeout(DEADLINE_S):
            while await store.room() < 5_900_000:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_blob_that_the_registry_does_not_have_fails_the_job(tmp_path: Path) -> None:
    async with scene(tmp_path) as it, peer(it, "a"):
        await it.known(2)
        spec = await it.spec()
        image = spec.images[0]
        wrong = msgspec.structs.replace(
            image.platforms[0], manifests=[image.digest, digest_of(b"no manifest")]
        )
        job = (
            await it.jobs.submit(JobSpec([msgspec.structs.replace(image, platforms=[wrong])]))
        ).id
        status = await it.until(job, "partly")

        assert status.hosts[0].code == "not_found"


async def test_a_cancelled_job_stops_and_unpins(tmp_path: Path) -> None:
    async with scene(tmp_path) as it, peer(it, "a") as first:
        await it.known(2)
        slow = msgspec.structs.replace(await it.spec(), rate=200_000)
        job = (await it.jobs.submit(slow)).id
        async with asyncio.timeout(DEADLINE_S):
            while not first.running.node.core.bulk.received_bytes:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert (await it.jobs.act(job, "cancel")).state == "cancelled"
        async with asyncio.timeout(DEADLINE_S):
            while first.running.store.pinned_bytes():  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert not all(blob.complete for blob in first.running.store.blobs())


async def test_pins_outlive_a_restart_and_keep_blobs_from_eviction(tmp_path: Path) -> None:
    async with scene(tmp_path) as it:
        it.registry.add_image("library/other", "1", [random_bytes(3_000_000, 7)])
        async with peer(it, "a"):
            await it.known(2)
            job = (await it.jobs.submit(await it.spec())).id
            await it.until(job, "done")
        async with peer(it, "a", max_bytes=6_000_000) as again:
            assert again.running.store.pinned_bytes() == 4_200_000
            assert await again.running.store.room() < 3_000_000
            await it.until(job, "done")


@pytest.mark.parametrize("rate", [2_000_000])
async def test_a_rate_bounds_what_comes_in(tmp_path: Path, rate: int) -> None:
    async with scene(tmp_path) as it, peer(it, "a"):
        await it.known(2)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        job = (await it.jobs.submit(msgspec.structs.replace(await it.spec(), rate=rate))).id
        await it.until(job, "done")

        assert loop.time() - began_s >= 0.9 * 4_200_000 / rate
