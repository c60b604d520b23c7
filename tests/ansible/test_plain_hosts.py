"""The life of plain hosts, in its order: each test goes on where the one before ended."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.ansible.conftest import ENGINES, OTHER_DAEMON_JSON, Datacenter
from tests.ansible.hosts import ROOT, Machine
from tests.e2e.harness.processes import Process
from tests.faults.records import recorded

pytestmark = [pytest.mark.timeout(300), pytest.mark.faults]

ROLES: Final = {"tracker", "proxy", "peer"}
EXCHANGE_PORT: Final = 5101
# What systemctl's stand-in and useradd leave.
_OF_THE_TEST: Final = re.compile(
    r"var/log/.*|run/.*|etc/(sub[ug]id|passwd|group|g?shadow)[-.]?.*|.*/multi-user\.target\.wants"
)
_KEPT: Final = re.compile(
    r"var/lib/p2pdist-\w+(/.*)?|etc/p2pdist(/conf\.d|/cluster\.secret|/proxy\.key)?"
)
TAKES_THE_PORT: Final = f"""
import socket
with socket.create_server(("0.0.0.0", {EXCHANGE_PORT})) as server:
    print("taken", flush=True)
    server.accept()
"""


def left(machine: Machine) -> set[str]:
    return {path for path in machine.left() if not _OF_THE_TEST.fullmatch(path)}


def version(machine: Machine) -> str:
    return machine.run("/usr/local/bin/p2pdist", "version")


def newer_source(work: Path) -> Path:
    """This tree under a later version."""
    source = work / "newer"
    source.mkdir()
    shutil.copytree(ROOT / "p2pdist", source / "p2pdist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy2(ROOT / name, source)
    init = source / "p2pdist" / "__init__.py"
    init.write_text(re.sub(r'(__version__.*= ")[^"]+', r"\g<1>9.9.9", init.read_text()))
    return source


def test_check_mode_changes_nothing_on_an_empty_host(datacenter: Datacenter) -> None:
    played = datacenter.control.play("site.yml", "--check", "--limit=edge")

    assert played.code == 0, played.text
    assert played.changed() > 0
    assert left(datacenter.edge) == set()


def test_every_daemon_runs_and_serves(datacenter: Datacenter) -> None:
    played = datacenter.control.play("site.yml")

    assert played.code == 0, played.text
    assert set(datacenter.core.daemons()) == ROLES
    assert set(datacenter.edge.daemons()) == {"peer"}
    written = left(datacenter.edge)
    assert OTHER_DAEMON_JSON[1:] in written
    assert not any("proxy" in Path(path).name for path in written if path.startswith("etc/"))


def test_secrets_are_where_hosts_have_them(datacenter: Datacenter) -> None:
    """`cluster init` was given another directory than hosts have."""
    shown = datacenter.core.run("/opt/p2pdist/bin/p2pdist", "config", "show")

    assert "/etc/p2pdist/cluster.secret" in shown
    assert "/etc/p2pdist/proxy.key" in shown
    assert str(datacenter.control.files) not in shown
    for name in ("cluster.secret", "proxy.key"):
        assert (datacenter.core.upper / "etc/p2pdist" / name).stat().st_mode & 0o777 == 0o600


def test_a_second_run_changes_nothing(datacenter: Datacenter) -> None:
    before = datacenter.core.daemons(), datacenter.edge.daemons()

    played = datacenter.control.play("site.yml")

    assert played.code == 0, played.text
    assert played.changed() == 0, played.text
    assert (datacenter.core.daemons(), datacenter.edge.daemons()) == before


def test_a_host_that_fails_stops_the_roll_out(datacenter: Datacenter) -> None:
    """The upgrade gets as far as the proxy, whose port somebody takes while it restarts."""
    control, core, edge = datacenter.control, datacenter.core, datacenter.edge
    before, of_edge, old = core.daemons(), edge.daemons(), version(edge)
    control.vars["p2pdist_source"] = str(newer_source(control.work))
    core.run("kill", "-9", str(before["proxy"]))
    stranger = core.host.inside(sys.executable, "-c", TAKES_THE_PORT)
    taken = Process("a stranger", stranger, control.work / "stranger.log")
    taken.start()
    try:
        taken.wait_ready(lambda: "taken" in taken.log.read_text())
        played = control.play("site.yml")
    finally:
        taken.stop()

    assert played.code != 0
    after = core.daemons()
    assert after["tracker"] != before["tracker"], played.text
    assert "proxy" not in after
    assert after["peer"] == before["peer"], "no play of peers began"
    assert "9.9.9" in version(core)
    assert (edge.daemons(), version(edge)) == (of_edge, old)


def test_what_was_not_restarted_is_at_the_next_run(datacenter: Datacenter) -> None:
    """The software of `core` changed in the run before, and is the same in this one."""
    core, edge = datacenter.core, datacenter.edge
    before, of_edge = core.daemons(), edge.daemons()

    with recorded(89, "an upgrade that stops between new software and restarts") as record:
        played = datacenter.control.play("site.yml")

        assert played.code == 0, played.text
        after = core.daemons()
        assert set(after) == ROLES
        assert after["peer"] != before["peer"]
        assert after["tracker"] == before["tracker"], "it runs with the new software already"
        assert edge.daemons()["peer"] != of_edge["peer"]
        assert "9.9.9" in version(edge)
        record.outcome = "the next run restarts what runs with the old one, and nothing else"


def test_a_changed_setting_restarts_every_role(datacenter: Datacenter) -> None:
    core = datacenter.core
    before = core.daemons()
    config = datacenter.control.files / "config.toml"
    config.write_text(config.read_text().replace('dc = "dc1"', 'dc = "dc2"'))

    played = datacenter.control.play("site.yml", "--limit=core")

    assert played.code == 0, played.text
    after = core.daemons()
    assert set(after) == ROLES
    assert not set(after.values()) & set(before.values())


def test_undo_leaves_state_and_keys(datacenter: Datacenter) -> None:
    # Taken off the list since, and there all the same.
    datacenter.control.host_vars["edge"] = {"p2pdist_engines": ENGINES[1:]}

    played = datacenter.control.play("undo.yml")

    assert played.code == 0, played.text
    for machine in (datacenter.core, datacenter.edge):
        assert machine.daemons() == {}
        assert {path for path in left(machine) if not _KEPT.fullmatch(path)} == set()
    assert "etc/p2pdist/proxy.key" in left(datacenter.core)
    assert "var/lib/p2pdist-peer" in left(datacenter.edge)


def test_undo_leaves_nothing_with_purge(datacenter: Datacenter) -> None:
    played = datacenter.control.play("undo.yml", p2pdist_purge=True)

    assert played.code == 0, played.text
    assert left(datacenter.core) | left(datacenter.edge) == set()
