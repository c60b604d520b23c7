"""A root and records that somebody else filled: nothing outside changes, nothing is believed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from p2pdist.engines.containerd import Containerd
from p2pdist.engines.containers_image import Crio, Podman
from p2pdist.engines.docker import Docker
from p2pdist.engines.install import uninstall
from p2pdist.engines.options import Options
from p2pdist.engines.record import FileRecord, Record, sha256
from p2pdist.engines.targets import Engine
from p2pdist.errors import ConfigError
from tests.engines.hosts import MIRROR, EngineHost
from tests.faults.records import recorded

ENGINES: list[Callable[[], Engine]] = [Docker, Containerd, Podman, Crio]
OWN_FILES = {
    "docker": "etc/docker/daemon.json",
    "containerd": "etc/containerd/certs.d/_default/hosts.toml",
    "podman": "etc/containers/registries.conf.d/50-p2pdist.conf",
    "crio": "etc/containers/registries.conf.d/50-p2pdist.conf",
}
VICTIM = b"root:x:0:0\n"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    (place / "empty").mkdir(parents=True)
    (place / "passwd").write_bytes(VICTIM)
    return place


@pytest.fixture(params=ENGINES)
def host(request: pytest.FixtureRequest, tmp_path: Path, outside: Path) -> EngineHost:
    (tmp_path / "root").mkdir()
    return EngineHost(tmp_path / "root", request.param())


def forge(host: EngineHost, path: Path | str, created_dirs: list[str]) -> Path:
    """A record as an image from a stranger brings it along; the victim's hash is well known."""
    name = host.engine.name
    kept = FileRecord(str(path), b"evil:x:0:0\n", sha256(VICTIM))
    record = Record(name, MIRROR, ["docker.io"], [kept], created_dirs)
    return host.put(f"state/{name}.json", msgspec.json.encode(record), 0o600)


@pytest.mark.faults
@pytest.mark.parametrize("depth", [1, 2])
def test_a_link_out_of_the_root_is_refused_and_nothing_written(
    host: EngineHost, outside: Path, depth: int
) -> None:
    parts = OWN_FILES[host.engine.name].split("/")[:depth]
    link = host.root.joinpath(*parts)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside)

    with recorded(75, "a root of strangers", f"{host.engine.name}, link {depth} deep") as record:
        with pytest.raises(ConfigError, match=f"{link} is a link"):
            host.install()

        assert sorted(path.name for path in outside.rglob("*")) == ["empty", "passwd"]
        assert not host.state.exists()
        record.outcome = "refused by name, nothing written"


def test_a_file_that_is_a_link_out_of_the_root_is_refused(host: EngineHost, outside: Path) -> None:
    link = host.root / OWN_FILES[host.engine.name]
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "passwd")

    with pytest.raises(ConfigError, match="is a link to"):
        host.install()

    assert (outside / "passwd").read_bytes() == VICTIM


def test_a_record_directory_that_leads_out_of_the_root_is_refused(
    host: EngineHost, outside: Path
) -> None:
    host.state.symlink_to(outside)

    with pytest.raises(ConfigError, match="state is a link to"):
        host.install()

    assert not (host.root / OWN_FILES[host.engine.name]).exists()


@pytest.mark.faults
@pytest.mark.parametrize("deed", ["install", "uninstall"])
@pytest.mark.parametrize("where", ["outside", "inside", "dots"])
def test_a_record_of_files_that_the_engine_does_not_write_is_not_believed(
    host: EngineHost, outside: Path, where: str, deed: str
) -> None:
    inside = host.put("/etc/passwd", VICTIM)
    own = OWN_FILES[host.engine.name]
    path = {
        "outside": outside / "passwd",
        "inside": inside,
        "dots": host.root / "etc" / "containerd" / "certs.d" / ".." / "hosts.toml",
    }[where]
    forge(host, path, [str(outside / "empty")])
    before = host.everything()

    variant = f"{host.engine.name}, {deed}, file {where}"
    with recorded(75, "a forged record", variant) as record:
        with pytest.raises(ConfigError, match="does not write here; nothing was touched"):
            host.install() if deed == "install" else host.uninstall()

        assert host.everything() == before
        assert not (host.root / own).exists()
        assert (outside / "passwd").read_bytes() == VICTIM
        assert (outside / "empty").is_dir()
        record.outcome = "refused by name, nothing touched"


def test_directories_that_none_of_its_files_lies_in_are_left_alone(
    host: EngineHost, outside: Path
) -> None:
    (host.root / "srv").mkdir()
    own = host.root / OWN_FILES[host.engine.name]
    forge(host, own, [str(outside / "empty"), str(host.root / "srv")])
    host.put(OWN_FILES[host.engine.name], VICTIM)

    host.uninstall()

    assert (outside / "empty").is_dir()
    assert (host.root / "srv").is_dir()


@pytest.mark.parametrize("which", ["file", "directory"])
@pytest.mark.parametrize("fault", ["owner", "group", "others"])
def test_a_record_that_somebody_else_could_have_written_is_not_believed(
    host: EngineHost, monkeypatch: pytest.MonkeyPatch, fault: str, which: str
) -> None:
    before = host.everything()
    host.install()
    installed = host.everything()
    record = host.state / f"{host.engine.name}.json"
    changed = record if which == "file" else host.state
    if fault == "owner" and os.geteuid() == 0:
        os.chown(changed, 65534, -1)
    elif fault == "owner":
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    else:
        changed.chmod(changed.stat().st_mode | (0o020 if fault == "group" else 0o002))

    reason = "belongs to another user" if fault == "owner" else "may be written by others"
    with pytest.raises(ConfigError, match=reason):
        host.uninstall()

    assert host.everything() == installed
    assert installed != before


def test_a_record_that_is_a_link_is_not_believed(host: EngineHost, outside: Path) -> None:
    host.install()
    record = host.state / f"{host.engine.name}.json"
    record.rename(outside / "record")
    record.symlink_to(outside / "record")

    with pytest.raises(ConfigError, match="is a link"):
        host.uninstall()


def test_nothing_is_installed_whose_record_would_not_be_believed(host: EngineHost) -> None:
    host.state.mkdir()
    host.state.chmod(0o777)
    before = host.everything()

    with pytest.raises(ConfigError, match="may be written by others"):
        host.install()

    assert host.everything() == before


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"engine":', b"\xff", b"{}"])
def test_a_damaged_record_is_named(host: EngineHost, content: bytes) -> None:
    host.put(f"state/{host.engine.name}.json", content)

    with pytest.raises(ConfigError, match="is damaged"):
        host.uninstall()


def test_a_configuration_file_outside_of_the_root_is_refused(tmp_path: Path, outside: Path) -> None:
    (tmp_path / "root").mkdir()
    host = EngineHost(tmp_path / "root", Docker(config_file=outside / "daemon.json"))

    with pytest.raises(ConfigError, match="does not lie below"):
        host.install()

    assert not (outside / "daemon.json").exists()


def test_a_relative_root_is_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    near = EngineHost(Path("../root"), Docker(config_file=Path("../root/daemon.json")))
    before = near.everything()

    near.install()
    far = Docker(config_file=tmp_path / "root" / "daemon.json")
    uninstall(far, Options(root=tmp_path / "root"), tmp_path / "root" / "state", dry_run=False)

    assert near.everything() == before
