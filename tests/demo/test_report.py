from __future__ import annotations

import json
from pathlib import Path

from p2pdist.demo.report import (
    HostRow,
    ProxyRow,
    Target,
    Traffic,
    summary,
    table,
    write_json,
)

ROW = HostRow("dc1-peer1", 1.5, True, "", Traffic(120_000_000, 80_000_000, 0, 0, 90_000_000))
NOTHING = Traffic(0, 0, 0, 0, 0)
READER = ProxyRow("dc1-proxy", Traffic(0, 0, 0, 200_000_000, 254_000_000))
COPIER = ProxyRow("dc2-proxy", Traffic(0, 0, 200_000_000, 0, 254_000_000))


def test_a_target_that_is_met_says_ok() -> None:
    line = Target("demo.upstream_ratio", 1.004, "<=", 1.05).line()

    assert line == "TARGET demo.upstream_ratio 1.004 <= 1.05 ok"


def test_a_target_that_is_missed_says_short() -> None:
    assert Target("demo.hosts_verified", 5, ">=", 6).line().endswith("5 >= 6 short")


def test_the_table_shows_where_bytes_came_from() -> None:
    lines = table([ROW], [READER, COPIER])

    assert lines == [
        "MB from         peers     proxy  other dc  registry      sent    time  result",
        "dc1-proxy           -         -         -     200.0     254.0",
        "dc2-proxy           -         -     200.0         -     254.0",
        "dc1-peer1       120.0      80.0         -         -      90.0   1.5 s  verified",
    ]
    assert max(map(len, lines)) <= 80


def test_a_failed_host_says_why() -> None:
    failed = HostRow("dc1-peer2", 0.1, False, "404 Not Found", NOTHING)

    assert table([failed], [])[1].endswith("FAILED: 404 Not Found")


def test_the_promise_is_said_in_a_sentence() -> None:
    text = summary(200_000_000, 6, 200_000_000, 202_000_000)

    assert text.replace("\n", " ") == (
        "6 hosts have the image: the registry sent it 1.00 times, "
        "and it crossed between the datacenters 1.01 times."
    )
    assert max(map(len, text.splitlines())) <= 80


def test_the_results_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "build" / "demo.json"

    target = Target("demo.hosts_verified", 6, ">=", 6)
    write_json(path, [ROW], [READER], [target], {"image_bytes": 1})

    document = json.loads(path.read_text())
    assert document["targets"][0]["ok"] is True
    assert document["hosts"][0]["peers"] == 120_000_000
    assert document["proxies"][0]["upstream"] == 200_000_000
