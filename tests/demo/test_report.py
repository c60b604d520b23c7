from __future__ import annotations

import json
from pathlib import Path

from p2pdist.demo.report import HostRow, Target, table, write_json

ROW = HostRow("dc1-peer1", 1.5, True, "", 120_000_000, 80_000_000, 0, 0)


def test_a_target_that_is_met_says_ok() -> None:
    line = Target("demo.upstream_ratio", 1.004, "<=", 1.05).line()

    assert line == "TARGET demo.upstream_ratio 1.004 <= 1.05 ok"


def test_a_target_that_is_missed_says_short() -> None:
    assert Target("demo.hosts_verified", 5, ">=", 6).line().endswith("5 >= 6 short")


def test_the_table_shows_where_bytes_came_from() -> None:
    head, line = table([ROW])

    assert head.split() == ["host", "time", "peers", "proxy", "other", "dc", "upstream", "result"]
    assert "120.0 MB" in line
    assert "80.0 MB" in line
    assert line.endswith("verified")


def test_a_failed_host_says_why() -> None:
    failed = HostRow("dc1-peer2", 0.1, False, "404 Not Found", 0, 0, 0, 0)

    assert table([failed])[1].endswith("FAILED: 404 Not Found")


def test_the_results_are_written_as_json(tmp_path: Path) -> None:
    path = tmp_path / "build" / "demo.json"

    write_json(path, [ROW], [Target("demo.hosts_verified", 6, ">=", 6)], {"image_bytes": 1})

    document = json.loads(path.read_text())
    assert document["targets"][0]["ok"] is True
    assert document["hosts"][0]["peers"] == 120_000_000
