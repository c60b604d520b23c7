"""Completion, as real shells ask for it."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig

import pytest

from p2pdist.cli.main import VERBS

SCRIPTS = sysconfig.get_path("scripts")
# A shell outside of readline has no `compopt`; this one says what it was asked for.
BASH = """
set -eu
compopt() { printf 'compopt %s %s\\n' "$@"; }
eval "$(p2pdist completion bash)"
complete -p p2pdist >/dev/null
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
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
