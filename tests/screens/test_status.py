"""`p2pdist status`: a host that is well, one in trouble, and one where nothing runs."""

from __future__ import annotations

from typing import Any

import pytest
from click.testing import CliRunner

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.lazy_status import describe_mounts
from p2pdist.cli.main import _fail
from p2pdist.cli.status import DEFAULT_ADMINS, describe, status
from p2pdist.model.health import RULES, Reason
from tests.cli.test_status import WELL
from tests.screens.golden import COLUMNS, is_screen

MB = 1_000_000
PULLS = [
    {
        "image": "registry.corp:5443/shop/api",
        "tag": "2.4",
        "ago_s": 42.0,
        "cut": 0,
        "bytes_by_source": {"rack": 96 * MB, "dc": 51 * MB, "proxy": 4 * MB},
    },
    {
        "image": "docker.io/library/alpine",
        "tag": "latest",
        "ago_s": 5400.0,
        "cut": 1,
        "bytes_by_source": {"proxy": 3 * MB},
    },
    {
        "image": "docker.io/library/alpine",
        "tag": "latest",
        "ago_s": 7300.0,
        "cut": 0,
        "bytes_by_source": {},
    },
]
PEER: dict[str, Any] = WELL | {
    "host_id": "a1a1e8833243" + "0" * 20,
    "uptime_s": 260_000.0,
    "links": 14,
    "registries": 3,
    "swarms": {"active": 1, "whole": 27},
    "cache_bytes": 3_150 * MB,
    "bytes_received": {"rack": 2_200 * MB, "dc": 800 * MB, "proxy": 150 * MB},
    "bytes_sent": {"rack": 1_900 * MB, "dc": 2_400 * MB},
}
TRACKER = {
    "role": "tracker",
    "host_id": "ae8a64fe0584" + "0" * 20,
    "dc": "dc1",
    "uptime_s": 90.0,
    "hosts_connected": 16,
    "swarms": {"active": 9},
    "leases": 2,
    "cluster_secret": {"fingerprints": ["1f09aa", "77c0de"], "trouble": ""},
}
AWAY = {
    "reason": "tracker_away",
    "for_s": 75.0,
    "detail": "none of tcp://10.0.0.2:5200, tcp://10.0.0.12:5200 answers",
    "fix": "is the tracker running, and does the firewall let its port through?",
}
FULL = {
    "reason": "store_full",
    "for_s": 600.0,
    "detail": "No space left on device",
    "fix": "free disk space below host.state_dir, or set store.max_bytes lower",
}


def test_well_with_its_last_pulls() -> None:
    lines = describe(PEER | {"recent_pulls": PULLS}, COLUMNS)

    is_screen("status-well", [*lines, "", *describe(TRACKER, COLUMNS)])


def test_in_trouble() -> None:
    troubled = PEER | {
        "links": 0,
        "tracker_connected": False,
        "draining": True,
        "degraded": [FULL, AWAY],
        "bans": 1,
        "stalls": 3,
        "rejected": {"hash": 2},
    }

    is_screen("status-trouble", describe(troubled, COLUMNS))


def test_fresh() -> None:
    is_screen("status-fresh", describe(WELL, COLUMNS))


def test_no_daemon(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    async def nobody(urls: tuple[str, ...]) -> list[dict[str, Any]]:
        assert urls == DEFAULT_ADMINS
        return []

    monkeypatch.setattr("p2pdist.cli.status._ask_all", nobody)
    error = CliRunner().invoke(status, []).exception
    assert isinstance(error, Exception)

    assert _fail(error, debug=False) == Exit.UPSTREAM
    is_screen("status-no-daemon", capsys.readouterr().err.splitlines())


SNAPSHOTTER: dict[str, Any] = {
    "role": "snapshotter",
    "host_id": "web-17",
    "dc": "dc1",
    "uptime_s": 7300.0,
    "layers": {"elsewhere": 2, "here": 1, "files": 6},
    "layer_bytes": {"elsewhere": 300 * MB, "here": 20 * MB, "files": 500 * MB},
    "images": [
        {
            "image": "registry.corp:5443/shop/api",
            "layers": 6,
            "size_bytes": 445 * MB,
            "here_bytes": 145 * MB,
        },
        {"image": "docker.io/library/redis", "layers": 3, "size_bytes": 0, "here_bytes": 0},
    ],
    "reads": {
        "kept": 1200,
        "waited": 340,
        "failed": 0,
        "bytes": 812 * MB,
        "fetched_bytes": {"demand": 100 * MB, "ahead": 12 * MB, "expected": 8 * MB},
        "waited_s": 12.34,
        "waiting": 0,
        "oldest_s": 0.0,
    },
    "degraded": [],
}
MOUNT: dict[str, Any] = {
    "directory": "/mnt",
    "image": "docker.io/library/alpine:3.20",
    "layers": 1,
    "mounted": True,
    "bytes": 2 * MB,
    "fetched_bytes": {"demand": MB, "ahead": 0, "expected": 0},
    "waiting": 0,
    "oldest_s": 0.0,
}


def test_a_host_whose_containers_start_before_their_layers_are_here() -> None:
    lines = describe(SNAPSHOTTER, COLUMNS)

    is_screen("status-snapshotter", [*lines, "", *describe_mounts([MOUNT], COLUMNS)])


def test_containers_that_stand_still() -> None:
    waits = {
        "reason": "reads_wait",
        "for_s": 12.0,
        "detail": "3 reads of containers wait, the oldest for 21 s",
        "fix": RULES[Reason.READS_WAIT].fix,
    }
    reads = SNAPSHOTTER["reads"] | {"waiting": 3, "oldest_s": 21.4, "failed": 2}
    images = [SNAPSHOTTER["images"][0] | {"image": f"quay.io/team/app{n}"} for n in range(12)]
    stuck = SNAPSHOTTER | {"reads": reads, "images": images, "degraded": [waits]}
    mounts = [MOUNT | {"waiting": 1, "oldest_s": 3.0}, MOUNT | {"mounted": False}]

    lines = [*describe(stuck, COLUMNS), "", *describe_mounts(mounts, COLUMNS)]

    is_screen("status-snapshotter-stuck", lines)


def test_a_fresh_snapshotter() -> None:
    fresh = SNAPSHOTTER | {
        "layers": {"elsewhere": 0, "here": 0, "files": 0},
        "images": [],
        "reads": {
            **SNAPSHOTTER["reads"],
            "kept": 0,
            "waited": 0,
            "bytes": 0,
            "waited_s": 0.0,
            "fetched_bytes": {"demand": 0, "ahead": 0, "expected": 0},
        },
    }

    is_screen("status-snapshotter-fresh", describe(fresh, COLUMNS))
