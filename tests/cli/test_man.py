"""The manual pages: one for each command, readable without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
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


def shown(page: str) -> str:
    """Return the page as a terminal of 80 columns shows it, or skip."""
    if shutil.which("groff") is None:
        pytest.skip("no groff here")
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-rLL=78n", "-P-cbou"],
        input=page.encode(),
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode() == ""
    return done.stdout.decode()


def test_there_is_a_page_for_each_command_and_the_settings() -> None:
    names = {f"{path}.1" for path, _ in commands(cli, "p2pdist")}

    assert set(PAGES) == names | {"p2pdist.1", "p2pdist-config.5"}
    assert {"p2pdist-pull.1", "p2pdist-runtime-install.1"} <= names


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_no_complaint(name: str) -> None:
    assert "NAME" in shown(PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_the_name_line_is_one_that_apropos_reads(name: str, tmp_path: Path) -> None:
    if shutil.which("lexgrog") is None:
        pytest.skip("no man-db here")
    path = tmp_path / name
    path.write_text(PAGES[name])

    done = subprocess.run(["lexgrog", path], capture_output=True, text=True, check=True)

    assert re.fullmatch(rf'{path}: "{name[:-2]} - \S.*"\n', done.stdout), done.stdout


def test_each_flag_stands_on_the_page_of_its_command() -> None:
    for path, command in commands(cli, "p2pdist"):
        page = shown(PAGES[f"{path}.1"])
        flags = [flag for option in command.params for flag in option.opts if flag[0] == "-"]
        assert [flag for flag in flags if flag not in page] == [], path


def test_each_setting_stands_on_the_page_of_the_settings() -> None:
    page = PAGES["p2pdist-config.5"].replace(r"\-", "-")

    assert [leaf.name for leaf in all_leaves() if f".B {leaf.key}\n" not in page] == []


def test_text_that_looks_like_roff_is_shown_as_it_stands() -> None:
    @click.command(help="It's C:\\n here.\n\n\b\n.SH odd\n'br 'quoted' ~^`")
    def odd() -> None: ...

    page = shown(pages(odd)["p2pdist.1"])

    assert "It's C:\\n here." in page
    assert ".SH odd\n" in page
    assert "'br 'quoted' ~^`" in page


def test_examples_keep_their_lines() -> None:
    page = shown(PAGES["p2pdist-pull.1"])

    assert re.search(r"^ +Examples:\n +p2pdist pull alpine:3.20\n +p2pdist pull ghcr", page, re.M)


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
