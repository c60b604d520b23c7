"""The manual pages: one for each command, readable without a complaint."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from p2pdist.cli.exit_codes import MEANINGS, Exit
from p2pdist.cli.main import cli
from p2pdist.cli.man_pages import pages
from p2pdist.settings import all_leaves

OPERATIONS = Path(__file__).parents[2] / "docs" / "operations.md"
PAGES = pages(cli)


def commands(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path}-{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}-{name}")


def test_there_is_a_page_for_each_command_and_the_settings() -> None:
    names = {f"{path}.1" for path, _ in commands(cli, "p2pdist")}

    assert set(PAGES) == names | {"p2pdist.1", "p2pdist-config.5"}
    assert {"p2pdist-pull.1", "p2pdist-runtime-install.1"} <= names


def test_each_setting_stands_on_the_page_of_the_settings() -> None:
    page = PAGES["p2pdist-config.5"].replace(r"\-", "-")

    assert [leaf.name for leaf in all_leaves() if f".B {leaf.key}\n" not in page] == []


def test_exit_codes_read_as_in_the_docs() -> None:
    section = OPERATIONS.read_text().partition("## Exit codes\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (\d+) \| (.*) \|$", section.replace("`", ""), re.MULTILINE)

    assert {int(code): text for code, text in MEANINGS.items()} == {int(c): t for c, t in rows}
    assert set(MEANINGS) == set(Exit)


def test_the_pages_are_written_where_man_looks(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["man", "--output", str(tmp_path)], standalone_mode=False)

    assert done.exception is None
    written = {p.name: p for p in tmp_path.rglob("*.[15]")}
    assert set(written) == set(PAGES)
    assert written["p2pdist-config.5"].parent.name == "man5"
    assert written["p2pdist.1"].read_text() == PAGES["p2pdist.1"]


@pytest.mark.parametrize("text", [".SH odd", "'SH odd", "\\fBodd"])
def test_no_line_of_a_text_is_a_request_or_an_escape(text: str) -> None:
    @click.command(help=f"Says.\n\n\b\n{text}\n")
    def odd() -> None: ...

    lines = pages(odd)["p2pdist.1"].partition("Says.")[2].splitlines()
    line = next(line for line in lines if "odd" in line)

    assert not line.startswith((".", "'", " "))
    assert "\\f" not in line
