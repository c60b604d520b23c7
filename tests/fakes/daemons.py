"""Daemons as processes of their own, on loopback and without root; each shows a certificate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import tomlkit

from p2pdist.control.client import TrackerClient
from p2pdist.demo.processes import Process, fetch_json
from p2pdist.exchange.link import LinkHandler
from p2pdist.exchange.transport import ExchangeLimits, ExchangeTransport
from p2pdist.model.ids import HostId
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.process.health import Health
from p2pdist.process.host_identity import HostIdentity
from p2pdist.process.identity import read_secrets
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.keys import KeyFiles, make_keys
from p2pdist.swarm.assembly import link_identity
from tests.control.test_client import Host
from tests.fakes.scraping import scraped, total
from tests.process.identities import TestCa

SERVICE, EXCHANGE, ADMIN = range(7101, 7104)


def own_loopback(number: int) -> str:
    """An address of this process alone: no connection, which comes from 127.0.0.1, takes a port
    there before a daemon does, and no other run listens there."""
    pid = os.getpid()
    return f"127.{64 + (pid >> 8) % 64}.{pid % 256}.{number}"


@dataclass(frozen=True)
class Daemon:
    """`service` is where its users come: `/v2/`, or control."""

    role: str
    host_id: HostId
    service: Address
    exchange: Address
    admin: Address
    directory: Path
    process: Process

    @property
    def url(self) -> str:
        return f"http://{self.service}"

    @property
    def state(self) -> Path:
        return self.directory / "state"

    @property
    def files(self) -> list[Path]:
        """All that it keeps."""
        return [path for path in self.state.rglob("*") if path.is_file()]

    @property
    def shown(self) -> bytes:
        """Its command line and its log."""
        argv = Path(f"/proc/{self.process.process.pid}/cmdline").read_bytes()
        return argv + self.process.log_path.read_bytes()

    @property
    def log(self) -> str:
        return self.process.log_path.read_text(errors="replace")


@dataclass
class Site:
    """A cluster that requires certificates."""

    directory: Path
    keys: KeyFiles
    ca: TestCa
    client: aiohttp.ClientSession
    upstream: list[dict[str, Any]]
    processes: list[Process] = field(default_factory=list)
    trackers: list[str] = field(default_factory=list)
    proxies: list[str] = field(default_factory=list)
    _made: int = 0

    async def three(self, **of_peer: Any) -> list[Daemon]:
        """A tracker, a proxy and a peer."""
        begun = [
            await self._begin("tracker"),
            await self._begin("proxy"),
            await self._begin("peer", **of_peer),
        ]
        await asyncio.gather(*(daemon.process.wait_ready(self.client) for daemon in begun))
        return begun

    async def start(self, role: str, **how: Any) -> Daemon:
        """Start one, and wait until it is ready; `how` as for `_begin`."""
        daemon = await self._begin(role, **how)
        await daemon.process.wait_ready(self.client)
        return daemon

    async def _begin(
        self,
        role: str,
        *,
        listen: str = "",
        advertise: Sequence[Address] = (),
        **own: Any,
    ) -> Daemon:
        """`listen`: by which other address of loopback its users call it. `own`: more of the
        settings of its role."""
        self._made += 1
        host_id = HostId(f"{self._made:032x}")
        directory = self.directory / f"{role}{self._made}"
        directory.mkdir(mode=0o755)
        here = own_loopback(self._made)
        service, links, admin = (Address(here, port) for port in (SERVICE, EXCHANGE, ADMIN))
        service = Address(listen or here, SERVICE)
        path = directory / "settings.toml"
        path.write_text(
            tomlkit.dumps(
                {
                    "cluster": {
                        "secret_file": str(self.keys.secret_file),
                        "proxy_keys": [self.keys.public_key],
                        "require_identity": True,
                    },
                    "host": {
                        "state_dir": str(directory / "state"),
                        "advertise": [str(address) for address in advertise],
                    },
                    role: {
                        "listen": str(service),
                        "admin_listen": str(admin),
                        "identity_dir": str(self.ca.directory(role, host_id)),
                        **self._of_role(role, links),
                        **own,
                    },
                    "upstream": self.upstream if role != "tracker" else [],
                }
            )
        )
        process = await Process.start(
            role, "p2pdist.cli.main", [role, "--config", str(path)], directory / "log",
            f"http://{service}", f"http://{admin}/readyz",
        )  # fmt: skip
        self.processes.append(process)
        if role == "tracker":
            self.trackers.append(f"tcp://{service}")
        elif role == "proxy":
            self.proxies.append(f"http://{service}")
        return Daemon(role, host_id, service, links, admin, directory, process)

    def _of_role(self, role: str, links: Address) -> dict[str, Any]:
        if role == "tracker":
            return {"announce_interval_s": 0.1}
        own = {"exchange_listen": str(links), "trackers": self.trackers}
        if role == "proxy":
            return {**own, "key_file": str(self.keys.key_file), "parents": []}
        return {**own, "proxies": self.proxies, "direct": False}

    async def status(self, daemon: Daemon) -> dict[str, Any]:
        return await fetch_json(self.client, f"http://{daemon.admin}/api/v1/status")

    async def metric(self, daemon: Daemon, name: str, **labels: str) -> float:
        """A series that is there: what nobody counts would be 0 for ever."""
        page = await scraped(self.client, daemon.admin)
        assert name in {each for each, _ in page}, name
        return total(page, name, **labels)

    # --- others, in this process ----------------------------------------------------------------

    def stolen(self, role: str, host_id: HostId) -> HostIdentity:
        """The certificate of a host whose disk somebody has read."""
        return self.ca.identity(role, host_id)

    @asynccontextmanager
    async def linking(
        self, handler: LinkHandler, me: Member, shown: HostIdentity | None
    ) -> AsyncIterator[ExchangeTransport]:
        """Who knows the secret, says that it is `me`, and shows that certificate."""
        transport = ExchangeTransport(
            handler,
            secret=lambda: read_secrets(self.keys.secret_file),
            me=lambda: me,
            limits=ExchangeLimits(),
            identity=lambda: link_identity(shown),
        )
        try:
            yield transport
        finally:
            await transport.close()

    @asynccontextmanager
    async def announcing(
        self, host: Host, shown: HostIdentity, health: Health | None = None
    ) -> AsyncIterator[TrackerClient]:
        """The same at the tracker."""
        control = TrackerClient(
            self.trackers,
            secret=lambda: read_secrets(self.keys.secret_file),
            me=lambda: host.me,
            listener=host,
            rng=Random(2),
            numbers=dict,
            health=health,
            identity=IdentityHolder(shown),
        )
        control.start()
        try:
            yield control
        finally:
            await control.close()


def member(host_id: HostId, role: Role, *addresses: Address) -> Member:
    return Member(host_id, role, Place("dc1"), addresses)


@asynccontextmanager
async def open_site(
    directory: Path, client: aiohttp.ClientSession, upstream: list[dict[str, Any]]
) -> AsyncIterator[Site]:
    keys, ca = make_keys(directory / "keys"), TestCa(directory)
    site = Site(directory, keys, ca, client, upstream)
    try:
        yield site
    finally:
        await asyncio.gather(*(process.end() for process in site.processes))


def upstream(host: str, url: str, **more: Any) -> dict[str, Any]:
    return {"host": host, "url": url, **more}
