"""`runtime install --early-starts`: what it writes, refuses, and takes back."""

from __future__ import annotations

import json
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from p2pdist.cli.runtime import runtime
from p2pdist.doctor.lazy import _choices, _containerd_config, _plugin_of
from p2pdist.engines import early_starts
from p2pdist.engines.containerd import Containerd
from p2pdist.engines.docker import Docker
from p2pdist.engines.early_starts import Version, told_version
from p2pdist.engines.options import EarlyStarts, Options, check_options
from p2pdist.errors import ConfigError
from tests.engines.hosts import EngineHost

CONFIG, DAEMON_JSON = "/etc/containerd/config.toml", "/etc/docker/daemon.json"
EARLY = EarlyStarts()
CRI = b'[plugins."io.containerd.grpc.v1.cri".containerd]\n'
SHAPES = [
    b"version = 2\n",
    b"version = 2",
    b"# only a comment\nversion = 2\r\n[debug]\r\n  level = 'info'\r\n",
    b"version = 2\n" + CRI + b'  snapshotter = "overlayfs"\n  default_runtime_name = "runc"\n',
    b"version = 2\n" + CRI + b"disable_snapshot_annotations = true # as it comes\n[debug]",
    b"version = 2\n[proxy_plugins]\n" + CRI + b'snapshotter = ""\n[proxy_plugins.x]\ntype = "y"\n',
    b'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.kata]\n'
    b'  snapshotter = "devmapper"\n',
    b"version = 3\n[plugins.'io.containerd.cri.v1.images']\n  snapshotter = 'overlayfs'\n"
    b"  use_local_image_pull = false\n  disable_snapshot_annotations = true\n",
    b"version = 3\n",
]  # fmt: skip


def containerd(root: Path, version: Version | None = None) -> EngineHost:
    return EngineHost(root, Containerd(lambda program, options: version))


def docker(root: Path, version: Version | None = None) -> EngineHost:
    host = EngineHost(root, Docker(version_of=lambda program, options: version))
    host.put(CONFIG, b"version = 2\n")
    EngineHost(root, Containerd(lambda program, options: None)).install(early=EARLY)
    return host


def toml(host: EngineHost, path: str) -> dict[str, Any]:
    return tomllib.loads((host.read(path) or b"").decode())


def cri_of(config: dict[str, Any]) -> dict[str, Any]:
    plugins = config["plugins"]
    if config["version"] == 3:
        return plugins["io.containerd.cri.v1.images"]  # type: ignore[no-any-return]
    return plugins["io.containerd.grpc.v1.cri"]["containerd"]  # type: ignore[no-any-return]


def starts_early(host: EngineHost) -> list[str]:
    """Who starts containers by our snapshotter, as the doctor sees it."""
    config = _containerd_config(host.root)
    name = _plugin_of(config, Path(EARLY.socket))
    return [user for user, chosen in _choices(config, host.root) if name and chosen == name]


# --- containerd ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", SHAPES)
def test_containerd_has_the_plugin_and_every_byte_is_back(tmp_path: Path, content: bytes) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, content)
    before = host.everything()

    outcome = host.install(early=EARLY)
    config, once = toml(host, CONFIG), host.everything()
    assert starts_early(host) == ["Kubernetes"]
    again = host.install(early=EARLY)

    assert host.everything() == once
    assert not any("restart containerd once" in message for message in again.messages)
    assert [message for message in outcome.messages if "restart containerd once" in message] == [
        early_starts.RESTART_CONTAINERD
    ]
    assert config["proxy_plugins"]["p2pdist"] == {
        "type": "snapshot",
        "address": EARLY.socket,
        "exports": {"root": EARLY.directory, "enable_remote_snapshot_annotations": "true"},
    }
    assert cri_of(config)["disable_snapshot_annotations"] is False
    assert cri_of(config).get("use_local_image_pull", config["version"] == 3) is (
        config["version"] == 3
    )
    said = host.uninstall()
    assert host.everything() == before
    assert early_starts.UNDONE["containerd"] in said.messages


@pytest.mark.parametrize("content", SHAPES)
@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_edited_config_gets_back_what_was_replaced(
    tmp_path: Path, content: bytes, is_recorded: bool
) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, content)
    host.install(early=EARLY)
    host.put(CONFIG, (host.read(CONFIG) or b"") + b"[metrics]\n  address = 'x'\n")
    if not is_recorded:
        shutil.rmtree(host.state)

    said = host.uninstall()

    left = toml(host, CONFIG)
    assert left.pop("metrics") == {"address": "x"}
    original = tomllib.loads(content.decode())
    assert cri_of_or_nothing(left) == cri_of_or_nothing(original)
    assert left.get("proxy_plugins") == original.get("proxy_plugins")
    assert b"p2pdist" not in (host.read(CONFIG) or b"")
    assert early_starts.UNDONE["containerd"] in said.messages


def cri_of_or_nothing(config: dict[str, Any]) -> dict[str, Any]:
    try:
        return {k: v for k, v in cri_of(config).items() if k != "registry"}
    except KeyError:
        return {}


@pytest.mark.parametrize(("version", "form"), [((1, 6), 2), ((1, 7), 2), ((2, 1), 3)])
def test_a_new_file_is_of_the_version_that_containerd_follows(
    tmp_path: Path, version: Version, form: int
) -> None:
    host = containerd(tmp_path, version)
    before = host.everything()

    host.install(early=EARLY)

    config = toml(host, CONFIG)
    assert config["version"] == form
    assert cri_of(config)["snapshotter"] == "p2pdist"
    assert starts_early(host) == ["Kubernetes"]
    host.uninstall()
    assert host.everything() == before


@pytest.mark.parametrize(
    ("content", "version", "reason"),
    [
        (b"version = 2\n", (1, 5), "too old"),
        (b"version = 2\n", (2, 1), "version 3"),
        (None, None, "containerd config default"),
        (b"# nothing\n", None, "containerd config default"),
        (b"version = 2\n" + CRI + b'snapshotter = "stargz"\n', None, "'stargz'"),
        (b"version = 2\n" + CRI + b"snapshotter = 7\n", None, "snapshotter 7"),
        (b'version = 2\n[proxy_plugins.p2pdist]\naddress = "/x"\n', None, "plugin p2pdist already"),
        (b"version = 2\nproxy_plugins = {}\n", None, "by hand"),
        (b"version = 2\n[plugins]\n'io.containerd.grpc.v1.cri'.containerd.snapshotter = ''\n",
         None, "by hand"),
    ],
)  # fmt: skip
def test_what_containerd_would_not_follow_is_refused(
    tmp_path: Path, content: bytes | None, version: Version | None, reason: str
) -> None:
    host = containerd(tmp_path, version)
    if content is not None:
        host.put(CONFIG, content)
    before = host.everything()

    with pytest.raises(ConfigError, match=reason):
        host.install(early=EARLY)

    assert host.everything() == before


def test_lines_that_were_written_by_hand_stay(tmp_path: Path) -> None:
    host = containerd(tmp_path)
    by_hand = (
        b'version = 2\n[proxy_plugins.p2pdist]\n  type = "snapshot"\n'
        b'  address = "/run/p2pdist/snapshotter.sock"\n' + CRI + b'  snapshotter = "p2pdist"\n'
    )
    host.put(CONFIG, by_hand)

    outcome = host.install(early=EARLY)
    host.put(CONFIG, (host.read(CONFIG) or b"") + b"# mine\n")
    host.uninstall()

    assert early_starts.RESTART_CONTAINERD not in outcome.messages
    config = toml(host, CONFIG)
    assert cri_of(config)["snapshotter"] == "p2pdist"
    assert config["proxy_plugins"] == tomllib.loads(by_hand.decode())["proxy_plugins"]


def test_an_installation_without_them_takes_them_back(tmp_path: Path) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, SHAPES[3])
    host.install()
    plain = host.everything()

    host.install(early=EARLY)
    other = EarlyStarts(socket="/run/other.sock")
    host.install(early=other)
    assert toml(host, CONFIG)["proxy_plugins"]["p2pdist"]["address"] == other.socket
    said = host.install()

    assert host.everything() == plain
    assert early_starts.UNDONE["containerd"] in said.messages


def test_an_installation_that_does_not_mention_them_keeps_them(tmp_path: Path) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, SHAPES[3])
    other = EarlyStarts(socket="/run/other.sock")
    host.install(early=other)

    host.install(keep_early=True, mirror="http://127.0.0.1:5999")

    assert toml(host, CONFIG)["proxy_plugins"]["p2pdist"]["address"] == other.socket
    assert cri_of(toml(host, CONFIG))["snapshotter"] == "p2pdist"


@pytest.mark.parametrize("held", ["layers/7", "snapshots/3"])
@pytest.mark.parametrize("is_recorded", [True, False])
def test_they_are_not_taken_back_while_containerd_needs_them(
    tmp_path: Path, held: str, is_recorded: bool
) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, SHAPES[3])
    before = host.everything()
    host.install(early=EARLY)
    if not is_recorded:
        shutil.rmtree(host.state)
    kept = host.put(f"{EARLY.directory}/{held}", b"").parent
    installed = host.everything()

    with pytest.raises(ConfigError, match="--force"):
        host.uninstall()
    if is_recorded:
        with pytest.raises(ConfigError, match="--force"):
            host.install()
    host.install(early=EARLY)

    assert host.everything() == installed
    host.uninstall(force=True)
    shutil.rmtree(tmp_path / "var")
    assert not kept.exists()
    if is_recorded:
        assert host.everything() == before


def test_imports_are_named(tmp_path: Path) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, b'version = 2\nimports = ["/etc/containerd/conf.d/*.toml"]\n')

    assert any("imports" in message for message in host.install(early=EARLY).messages)


def test_taken_back_also_where_it_would_be_refused_by_now(tmp_path: Path) -> None:
    host = containerd(tmp_path, (1, 7))
    host.put(CONFIG, SHAPES[3])
    host.install(early=EARLY)
    host.put(CONFIG, (host.read(CONFIG) or b"") + b"# mine\n")
    host.engine = Containerd(lambda program, options: (2, 1))

    host.uninstall()

    left = host.read(CONFIG) or b""
    assert left.startswith(SHAPES[3])
    assert b"p2pdist" not in left


def test_a_version_is_asked_of_this_host_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "containerd github.com/containerd/containerd/v2 2.1.9+unknown "
    program = tmp_path / "containerd"
    program.write_text(f"#!/bin/sh\necho '{said}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")

    assert told_version("containerd", Options()) == (2, 1)
    assert told_version("containerd", Options(root=tmp_path)) is None
    assert told_version("no-such-program", Options()) is None
    program.write_text("#!/bin/sh\necho 'Docker version 20.10.24+dfsg1, build 5d6db84'\n")
    assert told_version("containerd", Options()) == (20, 10)


# --- Docker -------------------------------------------------------------------------------------

IN_CONTAINERD = b'{"features": {"containerd-snapshotter": true}}'


@pytest.mark.parametrize(
    "content",
    [
        IN_CONTAINERD,
        b'\xef\xbb\xbf{\r\n  "features": {"containerd-snapshotter": true},\r\n  "debug": true\r\n}',
    ],
)
def test_docker_keeps_images_by_it_and_every_byte_is_back(tmp_path: Path, content: bytes) -> None:
    host = docker(tmp_path)
    host.put(DAEMON_JSON, content)
    before = host.everything()

    outcome = host.install(early=EARLY)
    once = host.everything()
    assert starts_early(host) == ["Kubernetes", "Docker"]
    host.install(early=EARLY)
    assert host.everything() == once
    assert early_starts.RESTART_DOCKER in outcome.messages
    said = host.uninstall()

    assert host.everything() == before
    assert early_starts.UNDONE["docker"] in said.messages


@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_edited_daemon_json_loses_only_our_part(tmp_path: Path, is_recorded: bool) -> None:
    host = docker(tmp_path)
    host.put(DAEMON_JSON, IN_CONTAINERD)
    host.install(early=EARLY)
    edited = {**json.loads(host.read(DAEMON_JSON) or b""), "debug": True}
    host.put(DAEMON_JSON, json.dumps(edited).encode())
    if not is_recorded:
        shutil.rmtree(host.state)

    host.uninstall()

    left = json.loads(host.read(DAEMON_JSON) or b"")
    assert left == {"features": {"containerd-snapshotter": True}, "debug": True}


@pytest.mark.parametrize(
    ("content", "version", "reason"),
    [
        (None, None, "out of sight"),
        (b'{"debug": true}', None, "out of sight"),
        (IN_CONTAINERD, (20, 10), "too old"),
        (b'{"storage-driver": "overlayfs", "features": {"containerd-snapshotter": true}}',
         (26, 1), "'overlayfs'"),
    ],
)  # fmt: skip
def test_what_docker_would_not_start_with_is_refused(
    tmp_path: Path, content: bytes | None, version: Version | None, reason: str
) -> None:
    host = docker(tmp_path, version)
    if content is not None:
        host.put(DAEMON_JSON, content)
    before = host.everything()

    with pytest.raises(ConfigError, match=reason):
        host.install(early=EARLY)

    assert host.everything() == before


def test_docker_needs_a_containerd_that_knows_it_and_keeps_it(tmp_path: Path) -> None:
    host = docker(tmp_path)
    host.put(DAEMON_JSON, IN_CONTAINERD)
    host.install(early=EARLY)
    below = containerd(tmp_path)

    with pytest.raises(ConfigError, match="--engine docker"):
        below.uninstall()
    host.uninstall()
    below.uninstall()
    with pytest.raises(ConfigError, match="--engine containerd --early-starts"):
        host.install(early=EARLY)


# --- command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", ["run/x.sock", "/run/../x", "/run/a\nb", "/" + "x" * 107, "/run//x", "/run/x/"]
)
def test_a_place_that_no_engine_finds_is_refused(place: str) -> None:
    with pytest.raises(ConfigError, match="--snapshotter-socket"):
        check_options(Options(early=EarlyStarts(socket=place)))


def test_the_command_shows_first_and_says_what_is_there(tmp_path: Path) -> None:
    host = containerd(tmp_path)
    host.put(CONFIG, SHAPES[3])
    before = host.everything()
    common = ["--root", str(tmp_path), "--state-dir", str(host.state)]

    def say(*words: str) -> str:
        result = CliRunner().invoke(runtime, [*words, *common], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    install = ["install", "--engine", "containerd", "--early-starts"]
    shown = say(*install, "--dry-run")
    assert '+  snapshotter = "p2pdist"' in shown
    assert host.everything() == before
    assert "restart containerd once" in say(*install)
    assert f"containerd: early starts by {EARLY.socket}" in say("status")
    shutil.rmtree(host.state)
    assert f"early starts in {tmp_path}{CONFIG} (without a record)" in say("status")
    assert "restart containerd once" in say("uninstall", "--engine", "containerd")
