"""`cluster init`: what goes where; the demonstration: who had what from where."""

from __future__ import annotations

from pathlib import Path

from p2pdist.cli.cluster import next_steps
from p2pdist.demo.report import HostRow, ProxyRow, Target, Traffic, summary, table
from tests.screens.golden import is_screen

MB = 1_000_000


def test_cluster_init() -> None:
    steps = next_steps(Path("/etc/p2pdist"), ["10.0.0.2"], ["10.0.0.1", "10.0.0.3"])

    is_screen("cluster-init", steps.splitlines())


def test_demo() -> None:
    proxies = [
        ProxyRow("dc1-proxy", Traffic(0, 0, 0, 200 * MB, 254 * MB)),
        ProxyRow("dc2-proxy", Traffic(0, 0, 200 * MB, 0, 250 * MB)),
    ]
    hosts = [
        HostRow(
            f"dc{dc}-peer{n}", 1.5 + n / 10, True, "", Traffic(120 * MB, 80 * MB, 0, 0, 90 * MB)
        )
        for dc in (1, 2)
        for n in (1, 2, 3)
    ]
    targets = [
        Target("demo.upstream_ratio", 1.0, "<=", 1.05),
        Target("demo.hosts_verified", 6, ">=", 6),
    ]

    is_screen(
        "demo",
        [
            *table(hosts, proxies),
            "",
            *summary(200 * MB, 6, 200 * MB, 202 * MB).splitlines(),
            *(target.line() for target in targets),
        ],
    )
