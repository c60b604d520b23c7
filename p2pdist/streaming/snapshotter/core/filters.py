"""Filters of containerd lists: `kind==active,labels."a.b"~=^x` (its package `pkg/filters`).

A filter is a list of conditions that all hold; of several filters one has to match. A field alone
means that it is there. What is no filter is refused, never taken for one that matches.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

FILTER_BYTES_MAX: Final = 16_384
FILTERS_MAX: Final = 256

_FIELD: Final = re.compile(r'([A-Za-z_]\w*)((?:\.(?:[\w\-/]+|"(?:[^"\\]|\\.)*"))*)')
_PART: Final = re.compile(r'\.([\w\-/]+|"(?:[^"\\]|\\.)*")')
_OPERATOR: Final = re.compile(r"==|!=|~=")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"|\|((?:[^|\\]|\\.)*)\||/((?:[^/\\]|\\.)*)/')
_BARE: Final = re.compile(r"[^,\s\"|]+")
_ESCAPED: Final = re.compile(r"\\(.)")

Fields = Callable[[Sequence[str]], str | None]
"""The value of a field path; None where there is none."""


class BadFilter(ValueError):
    """The message says where it ends to be one."""


@dataclass(frozen=True, slots=True)
class _Condition:
    path: tuple[str, ...]
    operator: str
    value: str

    def holds(self, fields: Fields) -> bool:
        found = fields(self.path)
        match self.operator:
            case "":
                return bool(found)
            case "==":
                return (found or "") == self.value
            case "!=":
                return (found or "") != self.value
            case _:
                return found is not None and re.search(self.value, found) is not None


class Filters:
    """None at all matches everything."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Raises BadFilter."""
        if len(texts) > FILTERS_MAX:
            raise BadFilter(f"{len(texts)} filters")
        self._any = [_parsed(text) for text in texts]

    def match(self, fields: Fields) -> bool:
        return not self._any or any(
            all(condition.holds(fields) for condition in conditions) for conditions in self._any
        )


def fields_of(plain: Mapping[str, str], labels: Mapping[str, str]) -> Fields:
    """Of what has named fields and labels."""

    def value(path: Sequence[str]) -> str | None:
        if path[0] == "labels":
            return labels.get(".".join(path[1:]))
        return plain.get(path[0]) if len(path) == 1 else None

    return value


def _parsed(text: str) -> list[_Condition]:
    if len(text) > FILTER_BYTES_MAX:
        raise BadFilter(f"a filter of {len(text)} bytes")
    conditions, at = [], 0
    while True:
        condition, at = _condition(text, at)
        conditions.append(condition)
        if at == len(text):
            return conditions
        if text[at] != ",":
            raise BadFilter(f"no filter from character {at} on: {text[at : at + 40]!r}")
        at += 1


def _condition(text: str, at: int) -> tuple[_Condition, int]:
    named = _FIELD.match(text, at)
    if named is None:
        raise BadFilter(f"no field at character {at}: {text[at : at + 40]!r}")
    path = (named[1], *(_unquoted(part) for part in _PART.findall(named[2])))
    operator = _OPERATOR.match(text, named.end())
    if operator is None:
        return _Condition(path, "", ""), named.end()
    value = _QUOTED.match(text, operator.end()) or _BARE.match(text, operator.end())
    if value is None:
        raise BadFilter(f"no value at character {operator.end()}")
    quoted = next((group for group in value.groups() if group is not None), None)
    word = value[0] if quoted is None else _ESCAPED.sub(r"\1", quoted)
    if operator[0] == "~=":
        try:
            re.compile(word)
        except re.error as error:
            raise BadFilter(f"no pattern: {error}") from None
    return _Condition(path, operator[0], word), value.end()


def _unquoted(part: str) -> str:
    return _ESCAPED.sub(r"\1", part[1:-1]) if part.startswith('"') else part
