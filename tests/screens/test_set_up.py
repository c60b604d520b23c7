"""`cluster init`: what goes where; `all-in-one`: who joins how; the demonstration: who had what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from p2pdist.cli.all_in_one import join_file
from p2pdist.cli.cluster import next_steps
from p2pdist.demo.report import HostRow, ProxyRow, Target, Traffic, summary, table
from p2pdist.model.members import Address
from p2pdist.settings import Cluster, Settings
from tests.screens.golden import is_screen

MB = 1_000_000


def test_cluster_init() -> None:
    steps = next_steps(Path("/etc/p2pdist"), ["10.0.0.2"], ["10.0.0.1", "10.0.0.3"])

    is_screen("cluster-init", steps.splitlines())


def test_cluster_init_with_certificates() -> None:
    hosts = ["10.0.0.2"], ["10.0.0.1", "10.0.0.3"]
    steps = next_steps(Path("/etc/p2pdist"), *hosts, certificates=True)

    is_screen("cluster-init-certificates", steps.splitlines())


def test_join_file_of_all_in_one() -> None:
    base = Settings()
    cluster = Cluster(
        secret_file=Path("/var/lib/p2pdist/keys/cluster.secret"), proxy_keys=("A" * 43 + "=",)
    )
    listening = replace(
        base,
        cluster=cluster,
        tracker=replace(base.tracker, listen=Address("0.0.0.0", 5200)),
        proxy=replace(
            base.proxy,
            listen=Address("0.0.0.0", 5100),
            exchange_listen=Address("0.0.0.0", 5101),
        ),
    )
    text = join_file(listening, [Address("10.0.0.5", 5101)], 5200, 5100)

    is_screen("all-in-one-join", (text or "").splitlines())


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
