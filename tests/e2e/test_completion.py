"""Completion in fish and zsh, which not every machine has; bash's is tested elsewhere."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from p2pdist.cli.main import VERBS
from tests.cli.typing_lines import SCRIPTS, arguments_in_zsh

# Completion functions of zsh run in its line editor alone; these stand in for what they call there.
ZSH = """
compdef() { :; }
_describe() { print -rl -- ${(P)3}; }
compadd() { print -rl -- ${(P)@[-1]}; }
_path_files() { print -r -- "files $*"; }
eval "$(p2pdist completion zsh)"
words=("$@") CURRENT=$#
_p2pdist_completion
"""


def completed(*argv: str) -> list[str]:
    done = subprocess.run(
        argv,
        env={**os.environ, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def in_zsh(*words: str) -> list[str]:
    return completed("zsh", "-f", "-c", ZSH, "zsh", "p2pdist", *words)


def in_fish(line: str) -> list[str]:
    asked = ["-c", 'p2pdist completion fish | source; complete -C "$argv[1]"', line]
    return completed("fish", "--no-config", *asked)


def test_fish_offers_verbs_flags_and_choices() -> None:
    assert {line.split("\t")[0] for line in in_fish("p2pdist ")} >= set(VERBS)
    assert [line.split("\t")[0] for line in in_fish("p2pdist completion z")] == ["zsh"]
    assert "--platform" in {line.split("\t")[0] for line in in_fish("p2pdist pull --p")}


def test_zsh_offers_verbs_flags_and_choices() -> None:
    assert {line.split(":")[0] for line in in_zsh("")} >= set(VERBS)
    assert any("zsh" in line for line in in_zsh("completion", "z"))
    assert any(line.startswith("--platform") for line in in_zsh("pull", "--p"))


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "layouts" / "app").mkdir(parents=True)
    (tmp_path / "two words.tar").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("p2pdist pull -o oc\tl\ta\t", "oci:layouts/app/"),
        ("p2pdist pull -o doc\ttw\t", "docker-archive:two words.tar"),
    ],
)
def test_zsh_completes_places_behind_a_colon(places: Path, line: str, place: str) -> None:
    assert arguments_in_zsh(line, places)[-1] == place


def test_fish_completes_places_behind_a_colon(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(places)

    assert in_fish("p2pdist pull -o oci:l") == ["oci:layouts/"]
    assert in_fish("p2pdist pull -o docker-archive:tw") == ["docker-archive:two words.tar"]
    assert in_fish("p2pdist pull -o o") == ["oci:"]
