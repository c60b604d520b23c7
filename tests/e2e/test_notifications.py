"""A real docker-registry tells a proxy of a push, in its own words."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.demo.processes import free_ports
from p2pdist.model.ids import digest_of
from p2pdist.model.members import Address
from p2pdist.registry_proxy.daemon import running_proxy
from p2pdist.settings import Replicate
from tests.e2e.harness.processes import Process
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.job_api import FakeJobApi
from tests.fakes.registry_images import build_image

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

SECRET = "0123456789abcdef-notify"


async def push(client: aiohttp.ClientSession, url: str, content: bytes) -> str:
    """Push an image as `team/app:1`, as any client would; return its digest."""
    image = build_image([content])
    for blob in (image.config, *image.layers):
        async with client.post(f"{url}/v2/team/app/blobs/uploads/") as started:
            assert started.status == 202
            target = started.headers["Location"]
        async with client.put(f"{target}&digest={digest_of(blob)}", data=blob) as stored:
            assert stored.status == 201
    headers = {"Content-Type": image.media_type}
    manifests = f"{url}/v2/team/app/manifests/1"
    async with client.put(manifests, data=image.manifest, headers=headers) as tagged:
        assert tagged.status == 201
    return digest_of(image.manifest)


async def test_a_push_to_a_real_registry_becomes_a_job(tmp_path: Path) -> None:
    registry_port, proxy_port = free_ports(2)
    url = f"http://127.0.0.1:{registry_port}"
    secret_file = tmp_path / "notify-secret"
    secret_file.touch(mode=0o600)
    secret_file.write_text(SECRET)
    endpoint = {
        "name": "p2pdist",
        "url": f"http://127.0.0.1:{proxy_port}/p2pdist/v1/notifications",
        "headers": {"Authorization": [f"Bearer {SECRET}"]},
        "timeout": "2s",
        "threshold": 5,
        "backoff": "1s",
    }
    config = tmp_path / "registry.yml"
    config.write_text(
        json.dumps(
            {
                "version": 0.1,
                "storage": {"filesystem": {"rootdirectory": str(tmp_path / "storage")}},
                "http": {"addr": f"127.0.0.1:{registry_port}"},
                "notifications": {"endpoints": [endpoint]},
            }
        )
    )
    log = tmp_path / "registry.log"
    process = Process("docker-registry", ["docker-registry", "serve", str(config)], log)
    async with AsyncExitStack() as stack:
        stack.callback(process.stop)
        process.start()
        lab = await stack.enter_async_context(open_lab(tmp_path, {"registry.test": url}))
        secret = lab.keys.secret_file.read_bytes().strip()
        api = await stack.enter_async_context(FakeJobApi(secret))
        client = await stack.enter_async_context(aiohttp.ClientSession())
        settings = lab.settings("proxy")
        own = replace(
            settings.proxy,
            listen=Address("127.0.0.1", proxy_port),
            job_trackers=(api.url,),
            notify_secret_file=secret_file,
        )
        rule = Replicate(name="web", images=("registry.test/team/*",))
        proxy = await stack.enter_async_context(
            running_proxy(replace(settings, proxy=own, replicate=(rule,)))
        )
        async with asyncio.timeout(20):
            while not await answers(client, url):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

        digests = []
        for content in (b"first", b"second"):
            digests.append(await push(client, url, content))
            async with asyncio.timeout(30):
                while api.digests != digests:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)

        async with client.get(f"{url_of(proxy.admin)}/metrics") as page:
            assert 'kind="distribution",result="queued"' in await page.text()


async def answers(client: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with client.get(f"{url}/v2/") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
