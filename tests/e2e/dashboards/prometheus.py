"""Debian's Prometheus with the configuration and rules of `deploy/prometheus`."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from p2pdist.demo.processes import free_ports
from tests.e2e.harness.processes import Process

DEPLOY: Final = Path(__file__).parents[3] / "deploy"
READY_S: Final = 20.0
EVERY: Final = "1s"

Labels = dict[str, str]


@dataclass
class Prometheus:
    url: str
    client: aiohttp.ClientSession

    async def query(self, expr: str) -> list[tuple[Labels, float]]:
        """Evaluate now; raise AssertionError for an expression that Prometheus refuses."""
        found = await self._get("/api/v1/query", {"query": expr})
        assert found["resultType"] == "vector", expr
        return [(one["metric"], float(one["value"][1])) for one in found["result"]]

    async def label_values(self, label: str, series: str) -> list[str]:
        path = f"/api/v1/label/{label}/values"
        return list(await self._get(path, {"match[]": series}))

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._get("/api/v1/rules", {}))["groups"]
        return [rule for group in groups for rule in group["rules"]]

    async def scraped(self, targets: int) -> None:
        """Return once every target was read at least once."""
        async with asyncio.timeout(READY_S):
            while await self.query("sum(up)") != [({}, targets)]:  # noqa: ASYNC110
                await asyncio.sleep(0.2)

    async def _get(self, path: str, params: Mapping[str, str]) -> Any:
        async with self.client.get(
            self.url + path, params=params, headers={"Accept-Encoding": "identity"}
        ) as answer:
            page = await answer.json()
        assert page["status"] == "success", (params, page)
        return page["data"]


@asynccontextmanager
async def running_prometheus(
    directory: Path, targets: Sequence[str], client: aiohttp.ClientSession
) -> AsyncIterator[Prometheus]:
    """Scrapes `targets` (host:port) and evaluates the rules every second."""
    _configure(directory, targets)
    (port,) = free_ports(1)
    process = Process(
        "prometheus",
        [
            "prometheus",
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        directory / "prometheus.log",
    )
    process.start()
    try:
        prometheus = Prometheus(f"http://127.0.0.1:{port}", client)
        async with asyncio.timeout(READY_S):
            while not await _ready(prometheus):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        yield prometheus
    finally:
        await asyncio.to_thread(process.stop)


def _configure(directory: Path, targets: Sequence[str]) -> None:
    """The files of the repository, with other targets and shorter intervals."""
    directory.mkdir()
    for name in ("recording.yml", "alerts.yml"):
        shutil.copy(DEPLOY / "prometheus" / name, directory)
    config = (DEPLOY / "prometheus" / "prometheus.yml").read_text()
    quoted = ", ".join(f'"{target}"' for target in targets)
    config, lists = re.subn(r"targets: \[.*\]", f"targets: [{quoted}]", config)
    config, intervals = re.subn(r"_interval: \d+s", f"_interval: {EVERY}", config)
    assert (lists, intervals) == (1, 2)
    (directory / "prometheus.yml").write_text(config)


async def _ready(prometheus: Prometheus) -> bool:
    try:
        async with prometheus.client.get(f"{prometheus.url}/-/ready") as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False
