"""What strangers choose does not steer a terminal."""

from __future__ import annotations

import logging
import unicodedata

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.process.logs import TextLines
from p2pdist.process.terminal import printable, printable_lines, steady

EVIL = "\x1b]0;OWNED\x07\x1b[2J\r\n\x9b31m\u202elinux"
ANYTHING = st.text(alphabet=st.characters())


def steers(text: str) -> bool:
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") or c == "\u202e" for c in text)


@given(ANYTHING)
def test_no_text_keeps_a_control_character(text: str) -> None:
    assert not steers(printable(text))
    lines = printable_lines(text)
    assert [lines.count(c) for c in "\n\t"] == [text.count(c) for c in "\n\t"]
    assert not steers(lines.replace("\n", "").replace("\t", ""))


@given(ANYTHING)
def test_a_line_keeps_its_colours_and_nothing_else(text: str) -> None:
    line = click.style("ready", fg="green") + text

    assert steady(line).startswith(click.style("ready", fg="green"))
    assert not steers(click.unstyle(steady(line)))


def test_what_is_meant_for_people_stays_as_it_is() -> None:
    text = "größe 🚀 registry.corp/app:1 — 99 % \u200d"

    assert printable(text) == steady(text) == text


def test_a_line_of_the_log_for_people_is_one_line() -> None:
    record = logging.LogRecord("x", logging.INFO, "", 0, "peer.refused", None, None)
    record.fields = {"reason": EVIL}

    assert not steers(TextLines().format(record))


def test_a_traceback_in_the_log_for_people_is_steady() -> None:
    try:
        raise ValueError(EVIL)
    except ValueError as error:
        info = (ValueError, error, error.__traceback__)
    record = logging.LogRecord("x", logging.INFO, "", 0, "task.crashed", None, info)

    assert not steers(TextLines().format(record).replace("\n", ""))


@pytest.mark.parametrize("text", ["a\x1b[38;5;1mb", "\x1b[0m"])
def test_a_colour_in_what_a_stranger_says_is_none(text: str) -> None:
    assert "\x1b" not in printable(text)
