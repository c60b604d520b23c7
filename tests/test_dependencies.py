"""docs/dependencies.md, pyproject.toml and the code name the same packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NAMES = [re.match(r"[a-z0-9-]+", text)[0] for text in PROJECT["dependencies"]]  # type: ignore[index]  # each begins with a name
MODULES = {"grpcio": "grpc", "protobuf": r"google\.protobuf"}
"""Where it is not the name of the package."""
SOURCES = [path.read_text() for path in (ROOT / "p2pdist").rglob("*.py")]


@pytest.mark.parametrize("name", NAMES)
def test_each_dependency_is_imported_by_the_package(name: str) -> None:
    module = MODULES.get(name, name.replace("-", "_"))
    pattern = re.compile(rf"^\s*(?:import|from) {module}\b", re.MULTILINE)

    assert any(pattern.search(source) for source in SOURCES)


def test_the_page_lists_exactly_the_dependencies() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    rows = re.findall(r"^\| ([a-z][a-z0-9-]*) \|", page, re.MULTILINE)

    assert sorted(rows) == sorted([*NAMES, "package"])


def test_every_module_that_the_page_names_exists() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    paths = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.py)`", page))

    paths = {path for path in paths if not path.startswith("tests/")}
    assert [path for path in paths if not (ROOT / "p2pdist" / path).is_file()] == []
