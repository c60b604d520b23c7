"""The manual pages, as groff and man-db read them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from p2pdist.cli.main import cli
from p2pdist.cli.man_pages import pages
from tests.cli.test_man import PAGES, commands


def shown(page: str) -> str:
    """Return the page as a terminal of 80 columns shows it."""
    done = subprocess.run(
        ["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-rLL=78n", "-P-cbou"],
        input=page.encode(),
        capture_output=True,
        check=True,
    )
    assert done.stderr.decode() == ""
    return done.stdout.decode()


@pytest.mark.parametrize("name", PAGES)
def test_groff_has_no_complaint(name: str) -> None:
    assert "NAME" in shown(PAGES[name])


@pytest.mark.parametrize("name", PAGES)
def test_the_name_line_is_one_that_apropos_reads(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(PAGES[name])

    done = subprocess.run(["lexgrog", path], capture_output=True, text=True, check=True)

    assert re.fullmatch(rf'{path}: "{name[:-2]} - \S.*"\n', done.stdout), done.stdout


def test_each_flag_stands_on_the_page_of_its_command() -> None:
    for path, command in commands(cli, "p2pdist"):
        page = shown(PAGES[f"{path}.1"])
        flags = [flag for option in command.params for flag in option.opts if flag[0] == "-"]
        assert [flag for flag in flags if flag not in page] == [], path


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
