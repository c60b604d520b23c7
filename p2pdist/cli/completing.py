"""How shells ask what completes a word, where that has colons in it: `oci:DIR`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    FishComplete,
    ZshComplete,
    add_completion_class,
    split_arg_string,
)

PLACE: Final = "place"
"""The type of an item that names a file, and so may have to be quoted."""

# A value that goes on (`oci:`, a directory) gets no space behind it.
BASH: Final = r"""%(complete_func)s() {
    local type value word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            *)
                [[ $value != *[/:] ]] || compopt -o nospace
                [[ $type != place || $word == [\"\']* ]] || printf -v value %%q "$value"
                COMPREPLY+=("$value")
                ;;
        esac
    done < <(env COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORD="$word" \
        %(complete_var)s=bash_complete "$1")
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
ZSH_PLAIN: Final = """\
        compadd -U -V unsorted -a completions
"""
ZSH: Final = """\
        local -a parts=(${(M)completions:#*[/:]}) wholes=(${completions:#*[/:]})
        (( ! $#parts )) || compadd -U -S '' -V unsorted -a parts
        (( ! $#wholes )) || compadd -U -V unsorted -a wholes
"""
FISH_SPLIT: Final = 'string split "," $completion'
FISH: Final = 'string split -m 1 "," $completion'
"""A help text, and the name of a file, may have commas."""


class Bash(BashComplete):
    """Readline splits words at colons too: the words are taken from the line instead, and only what
    follows the last split is given back of a value."""

    source_template = BASH

    def get_completion_args(self) -> tuple[list[str], str]:
        return line_words(os.environ["COMP_LINE"])

    def complete(self) -> str:
        args, incomplete = self.get_completion_args()
        before = before_word(incomplete, os.environ["COMP_WORD"])
        items = self.get_completions(args, incomplete)
        return "\n".join(f"{item.type},{item.value.removeprefix(before)}" for item in items)


class Zsh(ZshComplete):
    source_template = ZshComplete.source_template.replace(ZSH_PLAIN, ZSH)

    def format_completion(self, item: CompletionItem) -> str:
        return super().format_completion(_plain(item))


class Fish(FishComplete):
    source_template = FishComplete.source_template.replace(FISH_SPLIT, FISH)

    def format_completion(self, item: CompletionItem) -> str:
        return super().format_completion(_plain(item))


SHELLS: Final[Mapping[str, type[Bash | Zsh | Fish]]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


def register() -> None:
    """Have click answer with these what a shell asks."""
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)


def _plain(item: CompletionItem) -> CompletionItem:
    """zsh and fish quote by themselves."""
    return CompletionItem(item.value, "plain" if item.type == PLACE else item.type, item.help)


def line_words(line: str) -> tuple[list[str], str]:
    """Split a command line, up to the cursor, into its arguments and the one that is written."""
    words = split_arg_string(line)[1:]
    between = line[-1:].isspace() and not line.endswith("\\ ")
    return (words, "") if between or not words else (words[:-1], words[-1])


def before_word(written: str, word: str) -> str:
    """What of `written` stays as it is, where readline takes `word` for the word."""
    if word.startswith(('"', "'")):
        return ""
    if not word.strip(":="):
        return written
    return written.removesuffix("".join(split_arg_string(word)))


def prefixed_places(written: str, kinds: Mapping[str, bool]) -> list[CompletionItem]:
    """Complete `KIND:PATH`; `kinds`: whether each of them takes files, or directories only."""
    kind, colon, path = written.partition(":")
    if not colon:
        return [CompletionItem(f"{one}:", PLACE) for one in kinds if one.startswith(written)]
    if kind not in kinds:
        return []
    found = sorted(_entries(path, files=kinds[kind]))
    return [CompletionItem(f"{kind}:{entry}", PLACE) for entry in found]


def _entries(path: str, *, files: bool) -> Iterator[str]:
    directory, begun = os.path.split(path)
    above = path.removesuffix(begun) if begun else path
    for entry in _listed(directory or "."):
        hidden = entry.name.startswith(".") and not begun.startswith(".")
        # A line break would end the answer to the shell.
        if hidden or not entry.name.startswith(begun) or not entry.name.isprintable():
            continue
        if entry.is_dir():
            yield f"{above}{entry.name}/"
        elif files:
            yield f"{above}{entry.name}"


def _listed(directory: str) -> Iterable[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return list(entries)
    except OSError:
        return []
