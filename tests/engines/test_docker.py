from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from p2pdist.engines import docker
from p2pdist.engines.docker import Docker
from p2pdist.engines.record import Record, default_dir, records_at
from p2pdist.errors import ConfigError
from p2pdist.process.tree import Tree
from tests.engines.hosts import MIRROR, EngineHost

CONFIG = "/etc/docker/daemon.json"
ODD = [
    b"{}",
    b"{ }\n",
    b"",
    b'{"debug":true}',
    b'{\n\t"log-level": "warn",\n\t"dns": ["10.0.0.1"]\n}',
    b'{\r\n  "registry-mirrors": [\r\n    "https://other.test"\r\n  ]\r\n}\r\n',
    b'{"registry-mirrors": []}',
    b'{\n    "registry-mirrors": ["https://a.test", "http://127.0.0.1:5300"]\n}',
    '{"labels": ["größe=x", "\\u00e9"], "x": 1e3, "big": 12345678901234567890}\n\n'.encode(),
    b'\xef\xbb\xbf{"debug": false}',
    b'{"features": {"containerd-snapshotter": true}}',
]


@pytest.fixture
def host(tmp_path: Path) -> EngineHost:
    return EngineHost(tmp_path, Docker())


@pytest.mark.parametrize("content", ODD)
def test_every_byte_is_back_after_uninstall(host: EngineHost, content: bytes) -> None:
    host.put(CONFIG, content, mode=0o600)
    before = host.everything()

    host.install()
    installed = host.read(CONFIG)
    host.uninstall()

    assert installed is not None
    config = json.loads(installed.decode("utf-8-sig"))
    assert config["registry-mirrors"][0] == MIRROR
    assert config["registry-mirrors"].count(MIRROR) == 1
    assert host.everything() == before


def test_without_a_file_nothing_is_left_behind(host: EngineHost) -> None:
    before = host.everything()

    host.install()
    assert json.loads(host.read(CONFIG) or b"") == {"registry-mirrors": [MIRROR]}
    host.uninstall()

    assert host.everything() == before


def test_the_directory_of_the_records_goes_with_the_last_of_them(tmp_path: Path) -> None:
    tree, state = Tree(tmp_path), default_dir(tmp_path)
    kept_here = records_at(state, tree)
    for engine in ("docker", "podman"):
        kept_here.save(Record(engine, MIRROR, [], [], []))

    kept_here.forget("docker")
    assert kept_here.load("podman") is not None
    kept_here.forget("podman")

    assert not state.exists()
    assert state.parent.is_dir()  # of the daemons


def test_a_directory_that_somebody_chose_stays(tmp_path: Path) -> None:
    kept_here = records_at(tmp_path / "chosen", Tree(tmp_path))
    kept_here.save(Record("docker", MIRROR, [], [], []))

    kept_here.forget("docker")

    assert list((tmp_path / "chosen").iterdir()) == []


def test_doing_it_twice_changes_nothing_more(host: EngineHost) -> None:
    host.put(CONFIG, ODD[4])
    host.install()
    once = host.everything()

    outcome = host.install()

    assert outcome.changes == []
    assert "already installed" in outcome.messages
    assert host.everything() == once


def test_another_mirror_takes_the_place_of_the_first(host: EngineHost) -> None:
    host.put(CONFIG, ODD[5])
    before = host.everything()
    host.install()

    host.install(mirror="http://127.0.0.1:9999")

    config = json.loads(host.read(CONFIG) or b"")
    assert config["registry-mirrors"] == ["http://127.0.0.1:9999", "https://other.test"]
    host.uninstall()
    assert host.everything() == before


def test_a_file_that_was_edited_since_loses_only_our_part(host: EngineHost) -> None:
    host.put(CONFIG, b'{"debug": true}')
    host.install()
    edited = (host.read(CONFIG) or b"").replace(b"true", b"false")
    host.put(CONFIG, edited)

    outcome = host.uninstall()

    assert host.read(CONFIG) == b'{"debug": false}'
    assert any("edited since" in message for message in outcome.messages)


def test_installing_again_after_an_edit_keeps_the_edit_on_uninstall(host: EngineHost) -> None:
    host.put(CONFIG, b'{"debug": true}')
    host.install()
    host.put(CONFIG, b'{"debug": false}')  # somebody threw our part away

    host.install()
    host.uninstall()

    assert host.read(CONFIG) == b'{"debug": false}'


def test_a_dry_run_changes_nothing_and_shows_the_difference(host: EngineHost) -> None:
    host.put(CONFIG, b'{"debug": true}')
    before = host.everything()

    outcome = host.install(dry_run=True)

    assert host.everything() == before
    assert not host.state.exists()
    assert f'+{{"registry-mirrors": ["{MIRROR}"], "debug": true}}' in outcome.changes[0].diff()


def test_a_link_stays_a_link(host: EngineHost) -> None:
    real = host.put("/srv/daemon.json", b'{"debug": true}')
    link = host.root / CONFIG.lstrip("/")
    link.parent.mkdir(parents=True)
    link.symlink_to("../../srv/daemon.json")

    host.install()
    assert link.is_symlink()
    assert MIRROR.encode() in real.read_bytes()
    host.uninstall()

    assert link.is_symlink()
    assert real.read_bytes() == b'{"debug": true}'


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{", "broken"),
        (b"[]", "broken"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b"\xff", "broken"),
        (b'{"registry-mirrors": "x"}', "not a list"),
        (b'{"registry-mirrors": [1]}', "not a list"),
    ],
)
def test_a_file_that_docker_would_not_start_with_is_refused(
    host: EngineHost, content: bytes, reason: str
) -> None:
    host.put(CONFIG, content)

    with pytest.raises(ConfigError, match=reason):
        host.install()

    assert host.read(CONFIG) == content
    assert not host.state.exists()


def test_a_hosts_toml_that_hides_the_mirrors_is_refused(host: EngineHost) -> None:
    host.put(CONFIG, b'{"features": {"containerd-snapshotter": true}}')
    host.put(
        "/etc/docker/certs.d/docker.io/hosts.toml",
        b'[host."https://a.test"]\n[host."https://b.test"]\n',
    )

    with pytest.raises(ConfigError, match="ignores"):
        host.install()


@pytest.fixture
def dockerd(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that is called dockerd, and says when it hears SIGHUP."""
    script = tmp_path / "dockerd"
    script.symlink_to(sys.executable)
    code = (
        "import signal\n"
        "signal.signal(signal.SIGHUP, lambda *_: print('reloaded', flush=True))\n"
        "print('ready', flush=True)\n"
        "while True: signal.pause()\n"
    )
    process = subprocess.Popen([script, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_running_docker_is_reloaded_and_not_restarted(
    host: EngineHost, dockerd: subprocess.Popen[str]
) -> None:
    host.put("/var/run/docker.pid", str(dockerd.pid).encode())

    outcome = host.install()

    assert dockerd.stdout is not None
    assert dockerd.stdout.readline() == "reloaded\n"
    assert dockerd.poll() is None
    assert "was told to reload" in outcome.messages[0]


def test_a_pid_that_is_not_dockers_is_left_alone(host: EngineHost) -> None:
    caught: list[int] = []
    previous = signal.signal(signal.SIGHUP, lambda number, _: caught.append(number))
    try:
        host.put("/var/run/docker.pid", str(os.getpid()).encode())
        outcome = host.install()
    finally:
        signal.signal(signal.SIGHUP, previous)

    assert not caught
    assert "does not run" in outcome.messages[0]


def test_a_daemon_with_the_flag_is_refused() -> None:
    from p2pdist.engines.docker import refuse_flags

    refuse_flags(["dockerd", "--debug"])
    for flags in (["--registry-mirror=http://x"], ["--registry-mirror", "http://x"]):
        with pytest.raises(ConfigError, match="--registry-mirror"):
            refuse_flags(["dockerd", *flags])


def test_killed_at_any_point_it_can_be_done_again_and_taken_back(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put(CONFIG, b'{"debug": true}')
    before = host.everything()
    write = Tree.write
    for writes in range(3):
        left = [writes]

        def dying(*arguments: Any, left: list[int] = left, **options: Any) -> None:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
            write(*arguments, **options)

        monkeypatch.setattr(Tree, "write", dying)
        try:
            host.install()
        except KeyboardInterrupt:
            assert writes < 2
        monkeypatch.setattr(Tree, "write", write)
        host.install()
        assert MIRROR.encode() in (host.read(CONFIG) or b"")
        host.uninstall()
        assert host.everything() == before


@pytest.mark.parametrize(
    "mirror",
    ["127.0.0.1:5300", "ftp://a:1", "http://a", "http://a:1/path", "http://u@a:1", "http://a:x"],
)
def test_a_mirror_that_no_engine_takes_is_refused(host: EngineHost, mirror: str) -> None:
    with pytest.raises(ConfigError):
        host.install(mirror=mirror)


def test_a_running_docker_is_made_to_forget_the_mirror_first(
    host: EngineHost, dockerd: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It keeps mirrors when it reloads a file that does not name any."""
    monkeypatch.setattr(docker, "FORGET_S", 0.1)
    host.put("/var/run/docker.pid", str(dockerd.pid).encode())
    host.put(CONFIG, b'{"debug": true}')
    host.install()
    seen: list[bytes | None] = []
    monkeypatch.setattr(docker, "wait_forgotten", lambda *_: seen.append(host.read(CONFIG)))

    host.uninstall()

    assert [json.loads(text or b"") for text in seen] == [{"registry-mirrors": [], "debug": True}]
    assert host.read(CONFIG) == b'{"debug": true}'


def test_killed_while_docker_forgets_it_can_be_taken_back(
    host: EngineHost, dockerd: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host.put("/var/run/docker.pid", str(dockerd.pid).encode())
    host.put(CONFIG, b'{"debug": true}')
    host.install()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(docker, "wait_forgotten", killed)
    with pytest.raises(KeyboardInterrupt):
        host.uninstall()
    monkeypatch.setattr(docker, "wait_forgotten", lambda *_: None)

    host.uninstall()

    assert host.read(CONFIG) == b'{"debug": true}'


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (None, True),
        (b"{}", True),
        (b'{"registry-mirrors": ["https://other.test"]}', False),
        (b'{"registry-mirrors": []}', False),
    ],
)
def test_a_file_that_names_other_mirrors_says_so_itself(
    after: bytes | None, expected: bool
) -> None:
    now = b'{"registry-mirrors": ["http://127.0.0.1:5300"]}'

    assert (docker.let_go(now, after) is not None) == expected
