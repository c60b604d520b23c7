"""One run: hosts of one case get its image at once, from one contender."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Final

from bench.swarm.cases import Case
from bench.swarm.contenders import Contender, World
from bench.swarm.measure import busy_s, cpu_s, peak_mb
from tests.e2e.harness.image import REFERENCE, Image
from tests.e2e.harness.lab import open_lab
from tests.e2e.harness.processes import Process

BURN: Final = [sys.executable, "-c", "while True: pass"]
TIMEOUT_LIMITS: Final = 12
"""A run that takes longer than so many limits has failed."""
UNLIMITED_TIMEOUT_S: Final = 300.0


@dataclass(slots=True)
class Run:
    case: str
    contender: str
    seconds: float
    """Of the last host, from the common start."""
    ratio: float | None
    """Of that and the limit."""
    each_s: list[float]
    """Of every host, ascending."""
    first_byte_s: float | None
    """Of the host that got it last."""
    gap_s: float | None
    """The longest silence that a client saw in a body."""
    proxy_copies: float | None
    cpu_s_per_gb: float
    """Of all its processes, over the bytes that all hosts got."""
    peak_mb: float
    """Of its largest process."""
    trouble: dict[str, int]
    foreign_cores: float
    """What everybody else on the machine used meanwhile: clients, registry, this program."""


def measured(case: Case, contender: Contender, image: Image) -> Run:
    """Build a lab, have the hosts of `case` get `image`, and take it down. Raises LabError."""
    with open_lab() as lab:
        core_mbit = case.core_mbit_per_s or case.mbit_per_s
        registry_host = lab.host("registry", mbit_per_s=core_mbit)
        core = lab.host("core", mbit_per_s=core_mbit)
        hosts = [lab.host(f"h{n}", mbit_per_s=case.mbit_per_s) for n in range(1, case.hosts + 1)]
        holders = [lab.host(f"o{n}", mbit_per_s=case.mbit_per_s) for n in range(case.holders)]
        registry = lab.registry(registry_host, lab.work / "registry")
        registry.push(image, REFERENCE)
        world = World(lab, registry, core, hosts, holders, image, case)
        contender.start(world)
        if case.holder_up_mbit_per_s is not None:
            for host in holders:
                host.limit_uplink(case.holder_up_mbit_per_s)
        for n in range(case.burners):
            lab.own(burner := Process(f"burner {n}", BURN, lab.work / f"burner-{n}.log"))
            burner.start()
        copies_before = contender.copies(world)
        before_s = {process.pid: cpu_s([process.pid]) for process in world.processes}
        busy_before_s, began_s = busy_s(), time.monotonic()
        limit_s = case.limit_s
        timeout_s = UNLIMITED_TIMEOUT_S if limit_s is None else limit_s * TIMEOUT_LIMITS
        pulled = contender.pull(world, timeout_s)
        took_s = time.monotonic() - began_s
        pids = [process.pid for process in world.processes]
        used_s = cpu_s(pids) - sum(before_s.get(pid, 0.0) for pid in pids)
        copies = contender.copies(world)
        seconds = max(host.seconds for host in pulled)
        peaks_mb, trouble = [peak_mb(pid) for pid in pids], contender.trouble(world)
        foreign_cores = (busy_s() - busy_before_s - used_s) / took_s
        contender.check(world)
        return Run(
            case=case.name,
            contender=contender.name,
            seconds=seconds,
            ratio=None if limit_s is None else seconds / limit_s,
            each_s=sorted(host.seconds for host in pulled),
            first_byte_s=max((h.first_byte_s for h in pulled if h.first_byte_s), default=None),
            gap_s=max((h.gap_s for h in pulled if h.gap_s), default=None),
            proxy_copies=None if copies is None else copies - (copies_before or 0.0),
            cpu_s_per_gb=used_s / (case.size_bytes * case.hosts / 1e9),
            peak_mb=max(peaks_mb),
            trouble=trouble,
            foreign_cores=foreign_cores,
        )
