"""Which settings the doctor looks at: those that run, else the unit's, else the file's."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from p2pdist.demo.processes import free_ports
from p2pdist.doctor.findings import Level
from p2pdist.doctor.in_force import find_unit, settings_in_force, with_unit
from p2pdist.doctor.units import parse_unit
from p2pdist.errors import ConfigError
from p2pdist.model.members import Address
from p2pdist.model.private_places import parse_private_place
from p2pdist.peer.daemon import RunningPeer
from p2pdist.settings import Host, Settings, Upstream
from p2pdist.settings_json import as_json, parse_settings
from p2pdist.settings_load import Loaded, load_settings
from tests.fakes.cluster import Lab, open_lab, url_of

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, {"docker.io": "http://127.0.0.1:1"}) as lab:
        yield lab


def asked_of(peer: RunningPeer, **flags: str) -> Loaded:
    return load_settings(
        flags={"peer.admin_listen": str(peer.admin), **flags},
        environ={"P2PDIST_HOST__DC": "elsewhere", "P2PDIST_CONFIG": "/dev/null"},
    )


def test_settings_come_back_as_they_were_told() -> None:
    upstream = Upstream(
        "r.test",
        "http://10.0.0.1:5000",
        password_file=Path("/etc/p2pdist/password"),
        insecure=(Address("::1", 5443),),
        allow_private=(parse_private_place("10.0.0.0/8"),),
    )
    settings = replace(Settings(), upstream=(upstream,), host=Host(Path("/srv"), labels=("a=b",)))

    assert parse_settings(json.dumps(as_json(settings)).encode()) == settings


def test_settings_of_another_version_are_read_as_far_as_they_are_known() -> None:
    told = {"peer": {"patience_s": 5, "of_tomorrow": [1]}, "tomorrow": {}}

    settings = parse_settings(json.dumps(told).encode())

    assert settings == replace(Settings(), peer=replace(Settings().peer, patience_s=5.0))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"peer": 1}',
        b'{"peer": {"listen": "nowhere"}}',
        b'{"upstream": 1}',
        b'{"upstream": {"a": 1}}',
        b'{"upstream": [{"host": {}}]}',
        b"[" * 100_000,
    ],
)
def test_what_are_no_settings_is_refused(body: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_settings(body)


async def test_what_runs_counts_and_flags_of_this_command_over_it(lab: Lab) -> None:
    await lab.tracker()
    peer = await lab.peer("a")

    loaded = asked_of(peer, **{"host.rack": "r9"})
    settings, (finding,) = await settings_in_force(loaded, "peer", explicit=False)

    assert settings.peer.trackers == tuple(lab.trackers)
    assert settings.peer.admin_listen == peer.admin
    assert settings.host.rack == "r9"
    assert finding.level is Level.PASS
    assert f"the peer that runs at {peer.admin}" in finding.text
    assert "host.dc" in finding.text  # this command's own, which does not count
    assert settings.host.dc == "dc1"


async def test_a_file_that_was_named_is_what_is_checked(lab: Lab) -> None:
    peer = await lab.peer("a")

    settings, (finding,) = await settings_in_force(asked_of(peer), "peer", explicit=True)

    assert settings.host.dc == "elsewhere"
    assert finding.level is Level.WARN
    assert "host.dc" in finding.text


async def test_without_a_daemon_it_says_so(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    loaded = load_settings(flags={"peer.admin_listen": f"127.0.0.1:{port}"}, environ={})

    settings, (finding,) = await settings_in_force(loaded, "peer", explicit=False, root=tmp_path)

    assert settings == loaded.settings
    assert f"no peer runs at 127.0.0.1:{port}" in finding.text


async def test_settings_are_told_with_names_of_files_and_no_secret(lab: Lab) -> None:
    peer = await lab.peer("a")

    async with (
        aiohttp.ClientSession() as client,
        client.get(f"{url_of(peer.admin)}/api/v1/settings") as answer,
    ):
        text = await answer.text()

    assert json.loads(text) == as_json(
        replace(lab.settings("a"), peer=replace(lab.settings("a").peer, direct=False))
    )
    assert lab.keys.secret_file.read_text().strip() not in text


# --- units ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["peer", "proxy", "tracker"])
def test_the_units_that_are_shipped_say_where_things_are(tmp_path: Path, role: str) -> None:
    directory = tmp_path / "etc/systemd/system"
    directory.mkdir(parents=True)
    shutil.copy(UNITS / f"p2pdist-{role}.service", directory)

    unit = find_unit(role, tmp_path)

    assert unit is not None
    assert unit.config == "/etc/p2pdist/config.toml"
    assert unit.environ["P2PDIST_HOST__STATE_DIR"] == f"/var/lib/p2pdist-{role}"
    assert unit.environ["P2PDIST_CLUSTER__SECRET_FILE"] == "/etc/p2pdist/cluster.secret"


def test_variables_and_flags_of_a_unit_count_under_those_of_this_command(tmp_path: Path) -> None:
    directory = tmp_path / "usr/lib/systemd/system"
    (directory / "p2pdist-peer.service.d").mkdir(parents=True)
    file = tmp_path / "config.toml"
    file.write_text('[host]\ndc = "file"\nrack = "file"\nname = "file"\n')
    (directory / "p2pdist-peer.service").write_text(
        "[Service]\n# Environment=P2PDIST_HOST__DC=comment\n"
        'Environment=P2PDIST_HOST__DC=unit "P2PDIST_HOST__STATE_DIR=%S/with space"\n'
        f"ExecStart=/opt/p2pdist peer --config={file} \\\n  --host-rack unit --peer-direct false\n"
    )
    (directory / "p2pdist-peer.service.d" / "dc.conf").write_text(
        "[Service]\nEnvironment=P2PDIST_HOST__DC=drop-in\n"
    )
    own = load_settings(flags={"peer.direct": "true"}, environ={})

    unit = find_unit("peer", tmp_path)
    assert unit is not None
    loaded, whose = with_unit(own, unit, {})

    host = loaded.settings.host
    assert (host.dc, host.rack, host.name) == ("drop-in", "unit", "file")
    assert host.state_dir == Path("/var/lib/with space")
    assert loaded.settings.peer.direct is True
    assert "p2pdist-peer.service" in whose


def test_an_empty_assignment_forgets_those_before_it() -> None:
    unit = parse_unit("u", ["Environment=A=1\nEnvironment=\nEnvironment=B=100%%\n"])

    assert unit.environ == {"B": "100%"}


@pytest.mark.parametrize("text", ["Environment='A=1", "Environment=%", "ExecStart=p --x", "=", ""])
def test_odd_lines_of_a_unit_are_left_out(text: str) -> None:
    assert parse_unit("u", [text]).environ == {}


def test_there_need_be_no_unit(tmp_path: Path) -> None:
    assert find_unit("peer", tmp_path) is None
