"""The locks name all that pyproject.toml asks for, hash by hash, and nothing else."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from packaging.markers import Marker, default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKED = {
    "requirements.lock": PYPROJECT["project"]["dependencies"],
    "requirements-build.lock": PYPROJECT["build-system"]["requires"],
}
PYTHONS = ("3.11", "3.12", "3.13")
HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Pin:
    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def name(self) -> str:
        return canonicalize_name(self.requirement.name)

    @property
    def version(self) -> str:
        (specifier,) = self.requirement.specifier
        return specifier.version


def pins(lock: str) -> list[Pin]:
    text = re.sub(r"^#.*\n", "", (ROOT / lock).read_text(), flags=re.MULTILINE)
    entries = text.replace("\\\n", " ").splitlines()
    words = [re.split(r"\s+(?=--)", entry.strip()) for entry in entries]
    return [Pin(Requirement(first), tuple(rest)) for first, *rest in words]


def holds(marker: Marker | None, python: str) -> bool:
    environment = cast("dict[str, str]", default_environment())  # a TypedDict of strings
    environment["python_version"] = python
    environment |= {"python_full_version": f"{python}.0", "sys_platform": "linux", "extra": ""}
    return marker is None or marker.evaluate(environment)


def needed(asked: list[str], python: str) -> set[str]:
    """Return the names that `asked` leads to, as the installed packages say it."""
    found: set[str] = set()
    waiting = [Requirement(text) for text in asked]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if name in found or not holds(requirement.marker, python):
            continue
        found.add(name)
        waiting += [Requirement(text) for text in importlib.metadata.requires(name) or []]
    return found


@pytest.mark.parametrize("lock", ASKED)
def test_each_line_is_one_version_with_hashes_and_no_option(lock: str) -> None:
    for pin in pins(lock):
        assert str(pin.requirement.specifier) == f"=={pin.version}"
        assert pin.requirement.url is None
        assert pin.hashes
        assert [text for text in pin.hashes if not HASH.fullmatch(text)] == []


@pytest.mark.parametrize("lock", ASKED)
def test_what_is_asked_for_is_locked_within_its_range(lock: str) -> None:
    versions = {pin.name: pin.version for pin in pins(lock)}

    for requirement in map(Requirement, ASKED[lock]):
        version = versions.get(canonicalize_name(requirement.name), "none")
        assert version in requirement.specifier, (
            f"{requirement}: locked is {version}; run make lock"
        )


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("lock", ASKED)
def test_the_lock_is_complete_and_holds_nothing_else(lock: str, python: str) -> None:
    locked = {pin.name for pin in pins(lock) if holds(pin.requirement.marker, python)}

    assert locked == needed(ASKED[lock], python)


@pytest.mark.parametrize("lock", ASKED)
def test_what_is_tested_is_what_is_locked(lock: str) -> None:
    here = ".".join(default_environment()["python_version"].split(".")[:2])
    locked = {p.name: p.version for p in pins(lock) if holds(p.requirement.marker, here)}

    assert {name: importlib.metadata.version(name) for name in locked} == locked


def test_no_index_host_is_named() -> None:
    """Whoever installs from a mirror of the index is not sent elsewhere."""
    texts = [(ROOT / lock).read_text() for lock in ASKED]

    assert [text for text in texts if "://" in text or "--index" in text] == []
