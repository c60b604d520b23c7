"""What a unit of systemd gives a daemon: variables, and the arguments of its command. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from p2pdist.settings import all_leaves

# systemd.unit(5), "Specifiers", those of the system's manager; %d is of each unit's own.
_SPECIFIERS: Final = {
    "S": "/var/lib",
    "C": "/var/cache",
    "L": "/var/log",
    "t": "/run",
    "E": "/etc",
    "%": "%",
}


@dataclass(slots=True)
class Unit:
    """The lines of a unit that concern settings, drop-ins included."""

    name: str
    environ: dict[str, str] = field(default_factory=dict)
    command: list[str] = field(default_factory=list)
    credentials: dict[str, str] = field(default_factory=dict)
    """Name -> where systemd copies it from."""

    @property
    def config(self) -> str | None:
        """The file that its command names."""
        return _options(self.command).get("--config") or _options(self.command).get("-c")

    @property
    def flags(self) -> dict[str, str]:
        """The settings that its command gives as flags, by `section.key`."""
        given = _options(self.command)
        return {leaf.name: given[leaf.flag] for leaf in all_leaves() if leaf.flag in given}


def parse_unit(name: str, texts: Iterable[str]) -> Unit:
    """Read a unit file and its drop-ins, in their order; what cannot be read is left out.

    Credentials are named as the files that they are copies of: those are there before the start.
    """
    unit = Unit(name)
    assignments: list[str] = []
    for text in texts:
        for line in text.replace("\\\n", " ").splitlines():
            key, equals, value = line.strip().partition("=")
            if not equals or key.startswith(("#", ";")):
                continue
            match key.strip():
                case "Environment":
                    assignments = [*assignments, *_words(value)] if value.strip() else []
                case "ExecStart":
                    unit.command = _words(value)
                case "LoadCredential":
                    credential, _, path = value.strip().partition(":")
                    unit.credentials[credential] = path
    for assignment in assignments:
        variable, equals, value = assignment.partition("=")
        if equals:
            unit.environ[variable] = _expanded(value, unit)
    unit.command = [_expanded(word, unit) for word in unit.command]
    return unit


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:  # a quotation without its end
        return []


def _expanded(text: str, unit: Unit) -> str:
    for credential, path in unit.credentials.items():
        if text == f"%d/{credential}" and path.startswith("/"):
            return path
    parts, rest = [], text
    while "%" in rest:
        before, _, rest = rest.partition("%")
        letter, rest = rest[:1], rest[1:]
        directory = f"/run/credentials/{unit.name}" if letter == "d" else f"%{letter}"
        parts += [before, _SPECIFIERS.get(letter, directory)]
    return "".join([*parts, rest])


def _options(command: Sequence[str]) -> dict[str, str]:
    """`--key value` and `--key=value`; the last of each counts."""
    found: dict[str, str] = {}
    words = iter(command)
    for word in words:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            found[key] = value if equals else next(words, "")
    return found
