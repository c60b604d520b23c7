"""Completion, as real shells ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from p2pdist.cli.completing import before_word, line_words
from p2pdist.cli.main import VERBS
from tests.cli.typing_lines import SCRIPTS, arguments_in_bash

# A shell outside of readline has no `compopt`; this one says what it was asked for.
BASH = """
set -eu
compopt() { printf 'compopt %s %s\\n' "$@"; }
eval "$(p2pdist completion bash)"
complete -p p2pdist >/dev/null
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
COMP_LINE="$*" COMP_POINT=${#COMP_LINE}
_p2pdist_completion p2pdist
printf '%s\\n' "${COMPREPLY[@]}"
"""


def completed(*words: str) -> list[str]:
    """Return what bash offers for the last of `words`."""
    done = subprocess.run(
        ["bash", "--norc", "-c", BASH, "bash", "p2pdist", *words],
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.split("\n")[:-1]


def test_verbs_complete() -> None:
    assert completed("") == list(VERBS)
    assert completed("pr") == ["proxy", "prewarm"]


def test_commands_of_a_verb_complete() -> None:
    assert completed("config", "") == ["init", "show", "verify"]


def test_flags_complete() -> None:
    assert "--platform" in completed("pull", "--p")
    assert completed("peer", "--cluster-secret") == ["--cluster-secret-file"]


def test_choices_complete_as_choices() -> None:
    assert completed("pull", "--progress", "") == ["auto", "bar", "plain", "json"]
    assert completed("completion", "z") == ["zsh"]
    assert completed("config", "show", "--peer-direct", "") == ["true", "false"]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("config", "show", "--config", ""), "default"),
        (("peer", "--cluster-secret-file", "/etc/p"), "default"),
        (("keys", "init", "--dir", ""), "dirnames"),
    ],
)
def test_files_complete_as_files(words: tuple[str, ...], kind: str) -> None:
    assert completed(*words)[0] == f"compopt -o {kind}"


def test_verbs_are_offered_without_loading_them() -> None:
    """Each press of the key starts the program: it must not import what the verbs need."""
    script = (
        "import sys, click; from p2pdist.cli.main import cli\n"
        "cli.shell_complete(click.Context(cli), '')\n"
        "print(sorted(m for m in sys.modules if m.startswith('p2pdist.cli.')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "['p2pdist.cli.exit_codes', 'p2pdist.cli.main']"


# --- words with colons ----------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path: Path) -> Path:
    """A directory, one with a space in its name, and files."""
    for name in ("layouts/app", "two words"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("layouts.tar", "two words/a,b.tar"):
        (tmp_path / name).touch()
    return tmp_path


TYPED = {
    "p2pdist pull -o oc\tl\t": "oci:layouts/",
    "p2pdist pull -o oci:\tl\tapp": "oci:layouts/app",
    "p2pdist pull -o oci:lay\t": "oci:layouts/",
    "p2pdist pull -o oci:layouts/a\t": "oci:layouts/app/",
    "p2pdist pull -o oci:./lay\t\tnew": "oci:./layouts/app/new",
    "p2pdist pull -o docker-archive:layouts.\t": "docker-archive:layouts.tar",
    "p2pdist pull -o doc\ttwo\ta\t": "docker-archive:two words/a,b.tar",
    "p2pdist pull -o oci:layouts.\t": "oci:layouts.",  # a file is no layout
    "p2pdist pull --progress=pl\t": "--progress=plain",
}


@pytest.mark.parametrize("line", TYPED)
def test_bash_completes_places_behind_a_colon(places: Path, line: str) -> None:
    assert arguments_in_bash(line, places)[-1] == TYPED[line]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("p2pdist pull ", (["pull"], "")),
        ("p2pdist pull -o oci:a", (["pull", "-o"], "oci:a")),
        ("p2pdist pull -o oci:a\\ ", (["pull", "-o"], "oci:a ")),
        ("p2pdist pull -o 'oci:a b", (["pull", "-o"], "oci:a b")),
        ("p2pdist ", ([], "")),
        ("p2pdist", ([], "")),
    ],
)
def test_a_line_is_split_as_a_shell_does(line: str, words: tuple[list[str], str]) -> None:
    assert line_words(line) == words


@pytest.mark.parametrize(
    ("written", "word", "before"),
    [
        ("oci:a", "a", "oci:"),
        ("oci:", ":", "oci:"),
        ("oci:a b", "a\\ b", "oci:"),
        ("oci:a", "oci:a", ""),  # a user took the colon out of COMP_WORDBREAKS
        ("oci:a b", "'oci:a b", ""),
        ("", "", ""),
    ],
)
def test_what_readline_keeps_is_not_given_back(written: str, word: str, before: str) -> None:
    assert before_word(written, word) == before
