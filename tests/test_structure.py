"""How the tree is laid out: a test module for each module, and cores that are pure.

What modules may import is held by import-linter (`pyproject.toml`, `[tool.importlinter]`).
"""

from __future__ import annotations

import ast
import functools
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

ROOT: Final = Path(__file__).parent.parent
PYPROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE: Final = (ROOT / "Makefile").read_text()
MAIN: Final = ROOT / "p2pdist" / "cli" / "main.py"
ELSEWHERE: Final[dict[str, str]] = tomllib.loads((ROOT / "tests" / "elsewhere.toml").read_text())
"""Module below p2pdist/ without a test module of its own -> test module, or `make TARGET`."""

# What tells a time or touches a file without an import that a contract could refuse.
OF_SHELLS: Final = {
    "get_event_loop", "get_running_loop", "monotonic", "monotonic_ns", "perf_counter",
    "perf_counter_ns", "process_time", "read_bytes", "read_text", "sleep", "time", "time_ns",
    "write_bytes", "write_text",
}  # fmt: skip
OF_SHELLS_BUILT_IN: Final = {"__import__", "breakpoint", "eval", "exec", "input", "open", "print"}


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def modules() -> dict[str, Path]:
    """By path below p2pdist/."""
    package = ROOT / "p2pdist"
    return {str(path.relative_to(package)): path for path in sorted(package.rglob("*.py"))}


def has_code(tree: ast.Module) -> bool:
    """Whether any function does something: records, constants and protocols do not."""
    functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
    return any(not _is_constant(line) for function in functions for line in function.body)


def _is_constant(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def mirrored(module: str) -> Path:
    path = ROOT / "tests" / module
    return path.with_name(f"test_{path.name}")


def without_tests() -> set[str]:
    return {
        module
        for module, path in modules().items()
        if has_code(parsed(path)) and not mirrored(module).exists()
    }


# --- a test module for each module ----------------------------------------------------------------


def test_each_module_has_its_test_module_or_a_row_that_says_where_it_is_tried() -> None:
    assert sorted(without_tests() - ELSEWHERE.keys()) == []


def test_no_row_stands_for_a_module_that_has_its_tests_or_is_gone() -> None:
    assert sorted(ELSEWHERE.keys() - without_tests()) == []
    assert list(ELSEWHERE) == sorted(ELSEWHERE)


@pytest.mark.parametrize("tests", sorted(set(ELSEWHERE.values())))
def test_what_a_row_names_reaches_the_module(tests: str) -> None:
    if tests.startswith("make "):
        assert re.search(rf"^{tests.removeprefix('make ')}:", MAKEFILE, re.MULTILINE)
        return
    assert Path(tests).name.startswith("test_")
    runs_commands = tests.startswith(("tests/e2e/", "tests/compose/"))
    reached = reached_from(ROOT / tests, *([MAIN] if runs_commands else []))

    rows = {module for module, named in ELSEWHERE.items() if named == tests}
    assert sorted(rows - {str(path.relative_to(ROOT / "p2pdist")) for path in reached}) == []


def reached_from(*starts: Path) -> set[Path]:
    """The modules of p2pdist that files import, or name to be run, and what these do."""
    found, waiting = set(starts), list(starts)
    while waiting:
        new = set(named_by(waiting.pop())) - found
        found |= new
        waiting += new
    return {path for path in found if path.is_relative_to(ROOT / "p2pdist")}


@functools.cache
def named_by(path: Path) -> frozenset[Path]:
    names = set(_names(parsed(path)))
    files = {ROOT.joinpath(*name.split(".")).with_suffix(".py") for name in names}
    if path == MAIN:  # each verb has its module, which is imported when it is asked for
        files |= set(MAIN.parent.glob("*.py"))
    return frozenset(file for file in files if file.is_file())


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from (alias.name for alias in node.names)
            case ast.ImportFrom(module=str(module)):
                yield module
                yield from (f"{module}.{alias.name}" for alias in node.names)
            case ast.Constant(value=str(text)) if text.startswith("p2pdist."):
                yield text  # `python -m`
            case _:
                pass


# --- cores ----------------------------------------------------------------------------------------


def contract(words: str) -> dict[str, Any]:
    contracts: list[dict[str, Any]] = PYPROJECT["tool"]["importlinter"]["contracts"]
    (found,) = (one for one in contracts if one["name"].startswith(words))
    return found


CORES: Final[list[str]] = contract("Cores decide")["source_modules"]


def files_of(name: str) -> list[Path]:
    path = ROOT.joinpath(*name.split("."))
    return sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]


def test_the_contracts_of_cores_are_for_each_package_of_that_name() -> None:
    packages = {
        ".".join(path.relative_to(ROOT).parts)
        for path in (ROOT / "p2pdist").rglob("core")
        if (path / "__init__.py").exists()
    }
    assert packages <= set(CORES)
    assert contract("Cores hash")["source_modules"] == CORES
    assert all(file.is_file() for name in CORES for file in files_of(name))


@pytest.mark.parametrize("name", CORES)
def test_a_core_asks_nobody_for_the_time_and_opens_nothing(name: str) -> None:
    """Not of what it was given either: a loop, or a path."""
    assert [call for file in files_of(name) for call in calls_of_shells(parsed(file))] == []


def calls_of_shells(tree: ast.Module) -> list[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in calls
        if (isinstance(call, ast.Attribute) and call.attr in OF_SHELLS)
        or (isinstance(call, ast.Name) and call.id in OF_SHELLS_BUILT_IN | OF_SHELLS)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "loop.time()",
        "get_running_loop()",
        "time.monotonic()",
        "monotonic()",
        "self._loop.time() + 1",
        "open('x')",
        "path.read_text()",
        "print(1)",
    ],
)
def test_a_call_of_a_shell_is_seen(text: str) -> None:
    assert calls_of_shells(ast.parse(text))
    assert not calls_of_shells(ast.parse("keyring.open(record)\nlog.time\nnow_s + 1"))


# --- types ----------------------------------------------------------------------------------------


def test_mypy_reads_every_directory_that_has_code() -> None:
    files = PYPROJECT["tool"]["mypy"]["files"]
    tops = {path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")}
    tops -= {ROOT / "build"}

    assert sorted(files) == sorted(path.name for path in tops if any(path.rglob("*.py")))
