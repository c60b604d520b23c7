"""What the demonstration found: a table of who had what from where, and targets with verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from p2pdist.demo.processes import Process
from p2pdist.process.tree import write_named


@dataclass(frozen=True, slots=True)
class Traffic:
    """Payload in bytes: what came in, by where it came from, and what went out to others."""

    peers: int
    proxy: int
    wan: int
    upstream: int
    sent: int


@dataclass(frozen=True, slots=True)
class HostRow:
    """A host that pulled; `seconds` until it had all of the image."""

    name: str
    seconds: float
    verified: bool
    error: str
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class ProxyRow:
    name: str
    traffic: Traffic


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    value: float
    relation: Literal["<=", ">="]
    goal: float

    @property
    def ok(self) -> bool:
        return self.value <= self.goal if self.relation == "<=" else self.value >= self.goal

    def line(self) -> str:
        value = f"{self.value:.3f}".rstrip("0").rstrip(".")
        verdict = "ok" if self.ok else "short"
        return f"TARGET {self.name} {value} {self.relation} {self.goal:g} {verdict}"


def table(hosts: Sequence[HostRow], proxies: Sequence[ProxyRow]) -> list[str]:
    """Lines of a table, in MB, for 80 columns: who had what from where."""
    columns = "".join(f"{name:>10}" for name in ("peers", "proxy", "other dc", "registry", "sent"))
    lines = [f"{'MB from':<11}{columns}{'time':>8}  result"]
    for proxy in proxies:
        lines.append(f"{proxy.name:<11}{_cells(proxy.traffic)}")
    for host in hosts:
        result = "verified" if host.verified else f"FAILED: {host.error}"
        lines.append(f"{host.name:<11}{_cells(host.traffic)}{host.seconds:>6.1f} s  {result}")
    return lines


def _cells(traffic: Traffic) -> str:
    parts = [traffic.peers, traffic.proxy, traffic.wan, traffic.upstream, traffic.sent]
    return "".join(f"{nbytes / 1e6:>10.1f}" if nbytes else f"{'-':>10}" for nbytes in parts)


def processes_table(processes: Sequence[Process]) -> list[str]:
    """Lines with what is needed to look at processes, or to kill one."""
    lines = [f"  {'process':<13}{'pid':>8}  is asked at"]
    for process in processes:
        lines.append(f"  {process.name:<13}{process.process.pid:>8}  {process.url}")
    return lines


def summary(image_bytes: int, hosts: int, read_bytes: int, crossed_bytes: int) -> str:
    """What the table shows, in a sentence."""
    read, crossed = read_bytes / image_bytes, crossed_bytes / image_bytes
    return (
        f"{hosts} hosts have the image: the registry sent it {read:.2f} times, "
        f"and it crossed\nbetween the datacenters {crossed:.2f} times."
    )


def write_json(
    path: Path,
    hosts: Sequence[HostRow],
    proxies: Sequence[ProxyRow],
    targets: Sequence[Target],
    facts: dict[str, Any],
) -> None:
    document = {
        "schema_version": 1,
        **facts,
        "hosts": [_flat(row) for row in hosts],
        "proxies": [_flat(row) for row in proxies],
        "targets": [{**asdict(target), "ok": target.ok} for target in targets],
    }
    write_named(path, (json.dumps(document, indent=2) + "\n").encode())


def _flat(row: HostRow | ProxyRow) -> dict[str, Any]:
    fields = asdict(row)
    return {**fields, **fields.pop("traffic")}
