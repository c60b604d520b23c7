"""What `p2pdist config verify` finds in settings that can be read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from p2pdist.cli.verify import problems
from p2pdist.runtime.keys import make_keys
from p2pdist.settings import Cluster, Settings


def test_keys_in_a_file_are_keys_enough(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    cluster = Cluster(made.secret_file, proxy_keys_file=tmp_path / "proxy.pub")

    assert problems(Settings(cluster=cluster)) == ([], [])


def test_a_file_of_keys_that_is_not_there_keeps_daemons_from_starting(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    cluster = Cluster(made.secret_file, proxy_keys_file=tmp_path / "elsewhere.pub")

    errors, doubts = problems(Settings(cluster=cluster))

    assert errors == [
        f"cluster.proxy_keys_file: {tmp_path}/elsewhere.pub: No such file or directory"
    ]
    assert doubts == []


def test_no_keys_at_all_are_doubtful(tmp_path: Path) -> None:
    made = make_keys(tmp_path)
    settings = replace(Settings(), cluster=Cluster(made.secret_file))

    errors, doubts = problems(settings)

    assert errors == []
    assert "a peer would believe no chunk map" in doubts[0]
