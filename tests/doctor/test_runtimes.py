from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from p2pdist.doctor.findings import Level
from p2pdist.doctor.runtimes import check_runtimes
from p2pdist.engines.containerd import Containerd
from p2pdist.engines.containers_image import Crio, Podman
from p2pdist.engines.docker import Docker
from p2pdist.engines.targets import Engine
from p2pdist.settings import Settings
from tests.engines.hosts import EngineHost

ENGINES: list[Engine] = [Docker(), Containerd(), Podman(), Crio()]


@pytest.fixture
def _all_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")


def levels(root: Path) -> dict[str, Level]:
    return {f.check: f.level for f in check_runtimes(Settings(), root)}


@pytest.mark.usefixtures("_all_installed")
@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_what_runtime_install_wrote_is_found(tmp_path: Path, engine: Engine) -> None:
    before = levels(tmp_path)

    EngineHost(tmp_path, engine).install()

    assert before[engine.name] is Level.WARN
    assert levels(tmp_path)[engine.name] is Level.PASS


@pytest.mark.usefixtures("_all_installed")
def test_broken_files_are_only_doubtful(tmp_path: Path) -> None:
    for path in ("etc/docker/daemon.json", "etc/containers/registries.conf"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("[")

    assert set(levels(tmp_path).values()) == {Level.WARN}


def test_engines_that_are_not_here_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)

    assert levels(tmp_path) == {}
