"""The daemons of p2pdist as processes: configuration, readiness, counters, crash and restart."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.e2e.harness import mirror
from tests.e2e.harness.netns import FIRST_DC, Host
from tests.e2e.harness.processes import Process, run
from tests.e2e.harness.registry import PASSWORD, USER, Registry

REPOSITORY_ROOT: Final = Path(__file__).parents[3]
LOOPBACK: Final = "127.0.0.1"
PROXY_PORT: Final = 5100
PROXY_EXCHANGE_PORT: Final = 5101
TRACKER_PORT: Final = 5200
PEER_PORT: Final = 5300
PEER_EXCHANGE_PORT: Final = 5301
PEER_MIRROR_URL: Final = f"http://{LOOPBACK}:{PEER_PORT}"
ADMIN_PORTS: Final = {"proxy": 5109, "tracker": 5209, "peer": 5309}
_ENV: Final = {"PYTHONPATH": str(REPOSITORY_ROOT), "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, slots=True)
class Status:
    """What a daemon says of itself: payload bytes since its start."""

    received: Mapping[str, int]
    """By source: `rack`, `dc`, `proxy`, `wan`, `upstream`."""
    sent: Mapping[str, int]
    """By receiver: `peer`, `proxy`, `wan`."""

    @property
    def received_bytes(self) -> int:
        return sum(self.received.values())

    @property
    def received_from_peers_bytes(self) -> int:
        return self.received["rack"] + self.received["dc"]


class Daemon:
    """One role on one host; its state directory outlives its processes."""

    def __init__(self, role: str, host: Host, config: Path, log: Path, state_dir: Path) -> None:
        self.role = role
        self.host = host
        self.state_dir = state_dir
        argv = _p2pdist(role, "--config", str(config))
        self.process = Process(f"{role} on {host.name}", host.inside(*argv), log, _ENV)

    def start(self, env: Mapping[str, str] | None = None) -> None:
        """Start it and return once it says that it is ready; also after `kill9`.

        `env`: more variables, for this time only.
        """
        self.process.start(env)
        self.process.wait_ready(self._ready)

    def kill9(self) -> None:
        self.process.kill9()

    def stop(self) -> None:
        self.process.stop()

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def limit_descriptors(self, count: int) -> None:
        """Allow it that many open files from now on; those that are open stay so."""
        run(["prlimit", f"--pid={self.process.pid}", f"--nofile={count}:{count}"])

    def open_descriptors(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))

    def page(self) -> dict[str, Any]:
        """Return all that the daemon says of itself."""
        page: dict[str, Any] = mirror.get_json(
            self.host, LOOPBACK, ADMIN_PORTS[self.role], "/api/v1/status"
        )
        return page

    def readiness(self) -> dict[str, Any]:
        """Return what `/readyz` says; raise LabError where it does not say 200."""
        page: dict[str, Any] = mirror.get_json(
            self.host, LOOPBACK, ADMIN_PORTS[self.role], "/readyz"
        )
        return page

    def status(self) -> Status:
        page = self.page()
        return Status(page["bytes_received"], page["bytes_sent"])

    def _ready(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            status, _ = mirror.get(self.host, LOOPBACK, ADMIN_PORTS[self.role], "/readyz")
            return status == http.client.OK
        return False


class Cluster:
    """One datacenter: a tracker on the host `core`, proxies and peers wherever they are started.

    `own` is told of each process before it starts, and stops it at the end.
    """

    def __init__(
        self,
        core: Host,
        upstreams: Mapping[str, Registry],
        work: Path,
        own: Callable[[Process], None],
        *,
        dc: str = FIRST_DC,
        keys: Path | None = None,
    ) -> None:
        self._core = core
        self._upstreams = upstreams
        self._work = work
        self._own = own
        self._dc = dc
        self._proxies: list[str] = []
        self._federation: list[str] = []
        self._keys = work / "keys" if keys is None else keys
        if keys is None:
            run(_p2pdist("keys", "init", "--dir", str(self._keys)), env=_ENV)

    def datacenter(self, dc: str, core: Host) -> Cluster:
        """Another datacenter with the same keys and upstreams; call it before trackers start."""
        other = Cluster(core, self._upstreams, self._work, self._own, dc=dc, keys=self._keys)
        self._federation.append(other._tracker_url)
        other._federation.append(self._tracker_url)
        return other

    def start_tracker(self) -> Daemon:
        tracker = {
            "listen": f"{self._core.address}:{TRACKER_PORT}",
            # The job API asks for the operator's token, so other hosts of the lab may come.
            "admin_listen": f"0.0.0.0:{ADMIN_PORTS['tracker']}",
            "federation": self._federation,
        }
        return self._start("tracker", self._core, {"tracker": tracker})

    @property
    def jobs_url(self) -> str:
        """Where the tracker takes prewarm jobs."""
        return f"http://{self._core.address}:{ADMIN_PORTS['tracker']}"

    @property
    def secret_file(self) -> Path:
        return self._keys / "cluster.secret"

    @property
    def endpoint(self) -> str:
        """The first proxy's pull surface, for tools that resolve names."""
        return self._proxies[0]

    @property
    def proxy_keys(self) -> list[bytes]:
        """What the daemons believe, raw."""
        return [base64.b64decode(_public_key(self._keys / "proxy.key"))]

    def start_proxy(
        self,
        host: Host | None = None,
        *,
        rules: Sequence[Mapping[str, object]] = (),
        state_dir: Path | None = None,
        **settings: object,
    ) -> Daemon:
        """Start a proxy, on the tracker's host by default; peers started later know it.

        `rules` are `[[replicate]]` tables; `state_dir`: as for a peer; `settings` are further ones
        of its own section.
        """
        host = host or self._core
        proxy = {
            "listen": f"{host.address}:{PROXY_PORT}",
            "exchange_listen": f"{host.address}:{PROXY_EXCHANGE_PORT}",
            "key_file": str(self._keys / "proxy.key"),
            "trackers": [self._tracker_url],
            **settings,
        }
        self._proxies.append(f"http://{host.address}:{PROXY_PORT}")
        tables: dict[str, object] = {"replicate": list(rules)} if rules else {}
        return self._start("proxy", host, {"proxy": proxy, **tables}, state_dir)

    def start_peer(
        self,
        host: Host,
        *,
        state_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
        store: Mapping[str, object] | None = None,
        **settings: object,
    ) -> Daemon:
        """Return the running peer of `host`; `settings` are further ones of its own section.

        `labels`: what selectors choose it by; `store`: settings of its store. `state_dir`: an empty
        directory for its state, in place of one of the lab's. `env`: more variables, for the first
        start only.
        """
        peer = {
            "listen": f"{LOOPBACK}:{PEER_PORT}",
            "exchange_listen": f"{host.address}:{PEER_EXCHANGE_PORT}",
            "trackers": [self._tracker_url],
            "proxies": self._proxies,
            **settings,
        }
        tables = {"peer": peer, **({"store": store} if store else {})}
        return self._start("peer", host, tables, state_dir, env, labels)

    @property
    def _tracker_url(self) -> str:
        return f"tcp://{self._core.address}:{TRACKER_PORT}"

    def _start(
        self,
        role: str,
        host: Host,
        own_settings: Mapping[str, object],
        state_dir: Path | None = None,
        env: Mapping[str, str] | None = None,
        labels: Sequence[str] = (),
    ) -> Daemon:
        name = f"{role}-{host.name}"
        state = state_dir or self._work / f"state-{name}"
        state.mkdir(mode=0o700, exist_ok=state_dir is not None)
        config = self._work / f"{name}.toml"
        common = self._common_settings(state, host, labels)
        config.write_text(_toml(common | dict(own_settings)))
        daemon = Daemon(role, host, config, self._work / f"{name}.log", state / role)
        self._own(daemon.process)
        daemon.start(env)
        return daemon

    def _common_settings(self, state: Path, host: Host, labels: Sequence[str]) -> dict[str, object]:
        return {
            "cluster": {
                "secret_file": str(self._keys / "cluster.secret"),
                "proxy_keys": [_public_key(self._keys / "proxy.key")],
            },
            "host": {
                "state_dir": str(state),
                "dc": self._dc,
                "name": host.name,
                "labels": list(labels),
            },
            "log": {"format": "json"},
            "upstream": [self._upstream(name, reg) for name, reg in self._upstreams.items()],
        }

    def _upstream(self, name: str, registry: Registry) -> dict[str, object]:
        entry: dict[str, object] = {
            "host": name,
            "url": f"http://{registry.endpoint}",
        }
        if registry.private:
            password = self._work / "password"
            password.write_text(PASSWORD)
            password.chmod(0o600)
            entry |= {"access": "shared", "username": USER, "password_file": str(password)}
        return entry


def peer_mirror(host: Host) -> mirror.Mirror:
    """Return a client of the peer on `host`, as that host's runtime is one."""
    return mirror.Mirror(host, LOOPBACK, PEER_PORT)


def _p2pdist(*args: str) -> list[str]:
    return [sys.executable, "-m", "p2pdist.cli.main", *args]


def _public_key(key_file: Path) -> str:
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()


def _toml(settings: Mapping[str, Any]) -> str:
    """Write tables, and lists of tables; JSON's strings, numbers, booleans and lists are TOML's."""
    lines = []
    for section, content in settings.items():
        many = isinstance(content, list)
        for table in content if many else [content]:
            lines.append(f"[[{section}]]" if many else f"[{section}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
    return "\n".join(lines) + "\n"
