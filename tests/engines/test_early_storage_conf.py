"""`runtime install --early-starts` for Podman and CRI-O: storage.conf."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from p2pdist.engines import early_starts, install
from p2pdist.engines.containers_image import Crio, Podman
from p2pdist.errors import ConfigError
from tests.engines.hosts import EngineHost
from tests.engines.test_early_starts import EARLY, toml

STORAGE, USUAL = early_starts.STORAGE_CONF, early_starts.USUAL_STORAGE_CONF
IMAGES = f"{EARLY.directory}/images"
WRITTEN = b'[storage]\n  driver = "overlay"\n'
STORAGES = [
    WRITTEN,
    WRITTEN + b"[storage.options]\n# additionalimagestores = []\nsize = ''\n",
    WRITTEN + b"[storage.options]\nadditionalimagestores = [\n]\n[storage.options.overlay]\n",
    WRITTEN + b'[storage.options]\r\nadditionalimagestores = ["/a", # "]"\r\n"/b"]',
]


@pytest.mark.parametrize("engine", [Podman, Crio])
@pytest.mark.parametrize("content", STORAGES)
def test_podman_has_the_store_and_every_byte_is_back(
    tmp_path: Path, engine: type[Podman | Crio], content: bytes
) -> None:
    host = EngineHost(tmp_path, engine())
    host.put(STORAGE, content)
    host.put(f"{IMAGES}/kept", b"")
    before = host.everything()

    host.install(early=EARLY)
    stores, once = (
        toml(host, STORAGE)["storage"]["options"]["additionalimagestores"],
        host.read(STORAGE),
    )
    host.install(early=EARLY)
    assert host.read(STORAGE) == once
    assert stores[-1] == IMAGES
    options = tomllib.loads(content.decode())["storage"].get("options", {})
    assert stores[:-1] == options.get("additionalimagestores", [])
    said = host.uninstall()

    assert host.everything() == before
    assert early_starts.UNDONE[host.engine.name] in said.messages


@pytest.mark.parametrize("is_recorded", [True, False])
@pytest.mark.parametrize("content", STORAGES)
def test_an_edited_storage_conf_loses_only_our_part(
    tmp_path: Path, content: bytes, is_recorded: bool
) -> None:
    host = EngineHost(tmp_path, Podman())
    host.put(STORAGE, content)
    host.put(f"{IMAGES}/kept", b"")
    host.install(early=EARLY)
    host.put(STORAGE, b"# mine\n" + (host.read(STORAGE) or b""))
    if not is_recorded:
        shutil.rmtree(host.state)

    host.uninstall()

    assert tomllib.loads(content.decode()) == toml(host, STORAGE)
    assert (host.read(STORAGE) or b"").startswith(b"# mine\n")


@pytest.mark.parametrize("usual", [None, b"", b"# words\n", WRITTEN + b'graphroot = "/g"\n'])
def test_without_a_storage_conf_podman_keeps_what_it_went_by(
    tmp_path: Path, usual: bytes | None
) -> None:
    host = EngineHost(tmp_path, Podman())
    host.put(f"{IMAGES}/kept", b"")
    if usual is not None:
        host.put(USUAL, usual)
    before = host.everything()

    host.install(early=EARLY)

    storage = toml(host, STORAGE)["storage"]
    is_named = usual is not None and b"graphroot" in usual
    assert storage["driver"] == "overlay"
    assert storage["graphroot"] == ("/g" if is_named else "/var/lib/containers/storage")
    assert storage["options"]["additionalimagestores"] == [IMAGES]
    host.uninstall()
    assert host.everything() == before


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[storage]\ndriver = "vfs"\n', "'vfs'"),
        (b"[storage]\n", "None"),
        (b"[storage", "broken"),
        (WRITTEN + b"[storage.options]\nadditionalimagestores = 1\n", "no list"),
        (b'storage = {driver = "overlay"}\n', "by hand"),
    ],
)
def test_what_podman_would_not_run_with_is_refused(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    host = EngineHost(tmp_path, Podman())
    host.put(STORAGE, content)
    host.put(f"{IMAGES}/kept", b"")
    before = host.everything()

    with pytest.raises(ConfigError, match=reason):
        host.install(early=EARLY)

    assert host.everything() == before


def test_podman_is_not_told_of_a_store_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"snapshotter\.image_store"):
        EngineHost(tmp_path, Podman()).install(early=EARLY)


@pytest.mark.parametrize("is_edited", [False, True])
@pytest.mark.parametrize("content", [None, *STORAGES])
def test_an_installation_without_them_takes_the_store_out(
    tmp_path: Path, content: bytes | None, is_edited: bool
) -> None:
    host = EngineHost(tmp_path, Podman())
    host.put(f"{IMAGES}/kept", b"")
    if content is not None:
        host.put(STORAGE, content)
    host.install()
    plain = host.everything()
    host.install(early=EARLY)
    if is_edited:
        host.put(STORAGE, b"# mine\n" + (host.read(STORAGE) or b""))

    said = host.install()

    assert early_starts.UNDONE["podman"] in said.messages
    if is_edited:
        assert toml(host, STORAGE) == tomllib.loads((content or b"").decode())
        assert (host.read(STORAGE) or b"").startswith(b"# mine\n")
    else:
        assert host.everything() == plain
    again = host.install()
    assert again.messages[0] == "already installed"
    assert early_starts.UNDONE["podman"] not in again.messages


def test_one_that_was_killed_before_it_wrote_can_be_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = EngineHost(tmp_path, Podman())
    host.put(f"{IMAGES}/kept", b"")
    host.put(STORAGE, WRITTEN)
    host.install(early=EARLY)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(install, "_carry_out", killed)
        with pytest.raises(KeyboardInterrupt):
            host.install()
    host.install()

    assert host.read(STORAGE) == WRITTEN


def test_the_store_stays_where_the_other_engine_looks_too(tmp_path: Path) -> None:
    podman, crio = EngineHost(tmp_path, Podman()), EngineHost(tmp_path, Crio())
    podman.put(f"{IMAGES}/kept", b"")
    podman.put(STORAGE, WRITTEN)
    for host in (podman, crio):
        host.install(early=EARLY)

    said = podman.install()
    assert any("stays: crio uses it too" in message for message in said.messages)
    assert toml(podman, STORAGE)["storage"]["options"]["additionalimagestores"] == [IMAGES]

    crio.install()
    assert podman.read(STORAGE) == WRITTEN
