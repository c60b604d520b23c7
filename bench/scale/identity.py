"""What TLS and certificates add to a control connection: CPU of both ends, memory, a broadcast."""

from __future__ import annotations

import resource
import ssl
import tempfile
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop

from bench.prewarm.tracker_process import running_tracker
from bench.scale.costs import part_cores
from bench.scale.fleet import Fleet, host_id
from p2pdist.demo.report import Target
from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process import clock
from p2pdist.process.ca import Ca, issue_files, new_ca
from p2pdist.process.host_identity import read_identity

# Each has a certificate and a context of its own, which is 100 KB of the process that runs them.
HOSTS: Final = 2000
CONNECTS_PER_S: Final = 150
MAIN_ID: Final = HostId("f" * 32)


def _identity_dir(ca: Ca, directory: Path, role: IdentityRole, who: HostId) -> Path:
    issue_files(ca, directory, role, who, days=30, now_s=clock.unix_s())
    return directory


def contexts_of(ca: Ca, directory: Path, hosts: int) -> list[ssl.SSLContext]:
    """What each of `hosts` speaks TLS with."""
    return [
        read_identity(
            _identity_dir(ca, directory / str(number), IdentityRole.PEER, host_id(number)),
            Role.PEER,
        ).client
        for number in range(hosts)
    ]


async def connections(hosts: int, *, tls: bool) -> dict[str, float]:
    """Connect `hosts` to a tracker, silent ones; return what one costs each end."""
    with tempfile.TemporaryDirectory() as name:
        directory, ca = Path(name), new_ca(clock.unix_s())
        contexts = contexts_of(ca, directory, hosts) if tls else []
        identity_dir = directory / "tracker"
        _identity_dir(ca, identity_dir, IdentityRole.TRACKER, MAIN_ID)
        async with running_tracker(
            directory, identity_dir=identity_dir if tls else None
        ) as tracker:
            part_cores(tracker.pid)
            fleet = Fleet("127.0.0.1", tracker.control_port, tracker.secret, Random(1))
            fleet.contexts, fleet.silent = contexts, True
            fleet.fill(hosts)
            try:
                empty_mb, cpu_s, own_s = tracker.rss_mb("VmRSS"), tracker.cpu_s(), _own_cpu_s()
                await fleet.connect(CONNECTS_PER_S)
                return {
                    "tracker_us": 1e6 * (tracker.cpu_s() - cpu_s) / hosts,
                    "host_us": 1e6 * (_own_cpu_s() - own_s) / hosts,
                    "kb": 1024 * (tracker.rss_mb("VmRSS") - empty_mb) / hosts,
                    "refused": float(fleet.refused + sum(fleet.lost.values())),
                }
            finally:
                await fleet.close()


def _own_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def measure() -> tuple[dict[str, Any], list[Target]]:
    figures: dict[str, Any] = {"hosts": HOSTS}
    for word, tls in (("clear", False), ("tls", True)):
        found = uvloop.run(connections(HOSTS, tls=tls))
        figures |= {f"{word}_{what}": value for what, value in found.items()}
    return figures, [
        Target("scale.tls_connect_us", figures["tls_tracker_us"], "<=", 3000),
        Target("scale.tls_kb_per_connection", figures["tls_kb"], "<=", 64),
    ]
