"""All three daemons in one process serve a pull, and find their keys again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from click.testing import CliRunner

from p2pdist.cli.all_in_one import join_file, run, with_keys
from p2pdist.cli.amounts import size_text
from p2pdist.cli.prewarm import prewarm
from p2pdist.cli.status import describe
from p2pdist.demo.processes import free_ports
from p2pdist.model.members import Address
from p2pdist.settings import Host, Settings, Upstream
from p2pdist.settings_load import load_settings
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry


def settings_in(directory: Path, url: str) -> Settings:
    addresses = [Address("127.0.0.1", port) for port in free_ports(6)]
    base = Settings()
    return with_keys(
        replace(
            base,
            host=Host(directory),
            tracker=replace(base.tracker, listen=addresses[0], admin_listen=addresses[1]),
            proxy=replace(
                base.proxy,
                listen=addresses[2],
                exchange_listen=addresses[3],
                admin_listen=addresses[4],
            ),
            peer=replace(
                base.peer,
                listen=addresses[5],
            ),
            upstream=(Upstream("docker.io", url),),
        )
    )


async def wait_ready(client: aiohttp.ClientSession, address: Address) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                async with client.get(f"http://{address}/readyz") as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                await asyncio.sleep(0.02)


def stored_bytes(directory: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())


async def test_one_process_serves_a_pull_through_all_three(tmp_path: Path) -> None:
    layer = random_bytes(1 << 20, 5)
    async with FakeRegistry() as registry, aiohttp.ClientSession() as client:
        registry.add_image("library/app", "1", [layer])
        settings, stop = settings_in(tmp_path, registry.url), asyncio.Event()
        async with asyncio.TaskGroup() as daemons:
            daemons.create_task(run(settings, stop))
            await wait_ready(client, settings.proxy.admin_listen)

            bodies = await pull(client, f"http://{settings.peer.listen}")
            async with client.get(f"http://{settings.proxy.admin_listen}/api/v1/status") as answer:
                status = await answer.json()
            stop.set()

    assert layer in bodies.values()
    lines = describe(status)
    assert lines[0] == "proxy, and the peer of this host"
    assert any("pulled    docker.io/library/app:1" in line for line in lines)
    assert any("from upstream" in line for line in lines)
    assert stored_bytes(tmp_path) < 1.2 * len(layer)


async def test_it_is_a_host_of_prewarm_jobs(tmp_path: Path) -> None:
    """Ready with what lies in its only store; a pull asks the registry for nothing more."""
    layer = random_bytes(1 << 20, 6)
    async with FakeRegistry() as registry, aiohttp.ClientSession() as client:
        registry.add_image("library/app", "1", [layer])
        settings, stop = settings_in(tmp_path, registry.url), asyncio.Event()
        tracker, secret = settings.tracker.admin_listen, settings.cluster.secret_file
        common = ["--tracker", f"http://{tracker}", "--secret-file", str(secret)]
        argv = [*common, "--endpoint", f"http://{settings.peer.listen}", "--wait", "app:1"]
        async with asyncio.TaskGroup() as daemons:
            daemons.create_task(run(settings, stop))
            await wait_ready(client, settings.proxy.admin_listen)

            result = await asyncio.to_thread(CliRunner().invoke, prewarm, argv)
            read = registry.payload_total
            bodies = await pull(client, f"http://{settings.peer.listen}")
            stop.set()

    assert result.exit_code == 0, result.output
    assert "1 of 1" in result.output
    assert layer in bodies.values()
    assert registry.payload_total == read


def test_the_keys_of_the_first_start_are_found_again(tmp_path: Path) -> None:
    settings = replace(Settings(), host=Host(tmp_path))

    assert with_keys(settings) == with_keys(settings)


EVERYWHERE = replace(
    Settings(),
    tracker=replace(Settings().tracker, listen=Address("0.0.0.0", 5200)),
    proxy=replace(
        Settings().proxy,
        listen=Address("0.0.0.0", 5100),
        exchange_listen=Address("0.0.0.0", 5101),
    ),
)
ALONE = {
    "tracker": replace(EVERYWHERE, tracker=Settings().tracker),
    "proxy": replace(EVERYWHERE, proxy=Settings().proxy),
}
HERE = Address("10.0.0.5", 5101)


def test_what_a_host_needs_to_join_is_a_configuration_that_loads(tmp_path: Path) -> None:
    settings = with_keys(replace(EVERYWHERE, host=Host(tmp_path)))
    path = tmp_path / "join.toml"
    path.write_text(join_file(settings, [HERE], 5200, 5100) or "")

    joined = load_settings(path, environ={}).settings

    assert joined.peer.trackers == ("tcp://10.0.0.5:5200",)
    assert joined.peer.proxies == ("http://10.0.0.5:5100",)
    assert joined.cluster.proxy_keys == settings.cluster.proxy_keys
    assert str(settings.cluster.secret_file) in path.read_text()


@pytest.mark.parametrize("alone", list(ALONE))
def test_nobody_joins_what_listens_for_its_own_host(tmp_path: Path, alone: str) -> None:
    settings = with_keys(replace(ALONE[alone], host=Host(tmp_path)))

    assert join_file(settings, [HERE], 5200, 5100) is None


def test_configured_keys_are_left_alone(tmp_path: Path) -> None:
    own = with_keys(replace(Settings(), host=Host(tmp_path)))

    assert with_keys(own) is own


def test_sizes_are_shown_as_runtimes_show_them() -> None:
    assert [size_text(n) for n in (0, 999, 1500, 2_500_000, 3e9, 4e12)] == [
        "0 B",
        "999 B",
        "1.5 kB",
        "2.5 MB",
        "3.0 GB",
        "4.0 TB",
    ]
