"""A tracker in a process of its own, started by its command line, and what it costs."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp

from p2pdist.demo.processes import Process, free_ports
from p2pdist.process.identity import read_secret
from p2pdist.process.keys import KeyFiles, make_keys

LAG: Final = "p2pdist_event_loop_lag_max_seconds"


@dataclass(slots=True)
class TrackerProcess:
    directory: Path
    keys: KeyFiles
    control_port: int
    admin_port: int
    session: aiohttp.ClientSession
    profile: Path | None = None
    """Where its cProfile goes when it ends by SIGTERM; profiling doubles its CPU."""
    probed: Path | None = None
    """Where `bench.scale.probed_tracker` writes how late its event loop was; None: the command."""
    limit: Callable[[int], None] | None = None
    """Is given each process as soon as there is one, such as to put it under a quota."""
    process: Process | None = None

    @property
    def admin_url(self) -> str:
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def secret(self) -> bytes:
        return read_secret(self.keys.secret_file)

    async def start(self) -> None:
        log = self.directory / "tracker.log"
        arguments = ["tracker", "--config", str(self.directory / "tracker.toml")]
        module = "p2pdist.cli.main"
        if self.profile is not None:
            arguments = ["-o", str(self.profile), "-m", module, *arguments]
            module = "cProfile"
        if self.probed is not None:
            config = str(self.directory / "tracker.toml")
            module, arguments = "bench.scale.probed_tracker", [config, str(self.probed)]
        url, ready = self.admin_url, f"{self.admin_url}/readyz"
        self.process = await Process.start("tracker", module, arguments, log, url, ready)
        if self.limit is not None:
            self.limit(self.pid)
        await self.process.wait_ready(self.session)

    async def kill(self) -> None:
        """SIGKILL, without a word."""
        assert self.process is not None
        self.process.process.kill()
        await self.process.process.wait()

    async def end(self) -> None:
        if self.process is not None:
            await self.process.end()

    # --- what it costs --------------------------------------------------------------------------

    def cpu_s(self) -> float:
        """User and system time of the process so far."""
        stat = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mb(self, kind: str = "VmHWM") -> float:
        """The highest resident memory so far; `VmRSS`: now."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        return int(text.partition(f"{kind}:")[2].split()[0]) / 1024

    async def metrics(self) -> dict[str, float]:
        """All samples by name and labels, as they stand in the exposition."""
        async with self.session.get(f"{self.admin_url}/metrics", raise_for_status=True) as answer:
            lines = (await answer.text()).splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in pairs}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.process.pid


@asynccontextmanager
async def running_tracker(
    directory: Path,
    *,
    profile: Path | None = None,
    probed: Path | None = None,
    limit: Callable[[int], None] | None = None,
    identity_dir: Path | None = None,
) -> AsyncIterator[TrackerProcess]:
    """A tracker with keys and state of its own in `directory`, for as long as the block lasts;
    `identity_dir`: its certificate."""
    control, admin = free_ports(2)
    keys = make_keys(directory / "keys")
    sections: dict[str, dict[str, str | list[str]]] = {
        "cluster": {"secret_file": str(keys.secret_file), "proxy_keys": [keys.public_key]},
        "host": {"state_dir": str(directory / "state"), "dc": "dc1"},
        "tracker": {"listen": f"127.0.0.1:{control}", "admin_listen": f"127.0.0.1:{admin}"},
    }
    if identity_dir is not None:
        sections["tracker"]["identity_dir"] = str(identity_dir)
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{k} = {json.dumps(v)}" for k, v in values.items())]
    (directory / "tracker.toml").write_text("\n".join(lines) + "\n")
    async with aiohttp.ClientSession() as session:
        tracker = TrackerProcess(directory, keys, control, admin, session, profile, probed, limit)
        try:
            await tracker.start()
            yield tracker
        finally:
            await tracker.end()
