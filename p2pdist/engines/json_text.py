"""Edits a JSON object's text in place: what is not touched keeps its bytes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from json import JSONDecodeError, JSONDecoder
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import Any, Final

_SPACE: Final = re.compile(r"[ \t\r\n]*")
_decoder: Final = JSONDecoder(parse_constant=lambda name: _no_constant(name))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the top-level object; positions in the text."""

    key: str
    start: int
    value_start: int
    stop: int


def members(text: str) -> list[Member]:
    """Return the members of the object that `text` is; raise ValueError for anything else."""
    at = _skip(text, 0)
    if text[at : at + 1] != "{":
        raise ValueError("not a JSON object")
    found: list[Member] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "}":
        if found:
            at = _skip(text, _expect(text, at, ","))
        start = at
        key, at = scanstring(text, _expect(text, at, '"'))
        value_start = _skip(text, _expect(text, _skip(text, at), ":"))
        _, stop = _value(text, value_start)
        found.append(Member(key, start, value_start, stop))
        at = _skip(text, stop)
    if text[_skip(text, at + 1) :]:
        raise ValueError("something follows the JSON object")
    keys = [member.key for member in found]
    if len(set(keys)) < len(keys):
        raise ValueError("a key stands there twice")
    return found


def elements(text: str, member: Member) -> list[tuple[Any, int, int]]:
    """Return value, start and stop of each element of a member that is an array."""
    if text[member.value_start] != "[":
        raise ValueError(f"{member.key} is not a list")
    found: list[tuple[Any, int, int]] = []
    at = _skip(text, member.value_start + 1)
    while text[at : at + 1] != "]":
        if found:
            at = _skip(text, _expect(text, at, ","))
        value, stop = _value(text, at)
        found.append((value, at, stop))
        at = _skip(text, stop)
    return found


def put_first(text: str, key: str, value: str) -> str:
    """Put the text `value` first into the array `key`, which is made where it is not there."""
    found = {member.key: member for member in members(text)}
    quoted = json.dumps(value)
    if key in found:
        at = found[key].value_start + 1
        space = _space_after(text, at)
        if not elements(text, found[key]):
            return text[:at] + quoted + text[at:]
        return f"{text[: at + len(space)]}{quoted},{space or ' '}{text[at + len(space) :]}"
    return _put_member(text, key, f"[{quoted}]")


def put(text: str, key: str, value: str) -> str:
    """Put the member `key` with the text `value` first; it must not be there."""
    return _put_member(text, key, json.dumps(value))


def drop(text: str, key: str) -> str:
    """Take the member `key` out, whatever its value."""
    found = members(text)
    span = next(((m.start, m.stop) for m in found if m.key == key), None)
    return text if span is None else _cut(text, [(m.start, m.stop) for m in found], span)


def take_out(text: str, key: str, value: str) -> str:
    """Take the text `value` out of the array `key`; the array goes with its last element."""
    member = next((m for m in members(text) if m.key == key), None)
    if member is None:
        return text
    parts = elements(text, member)
    mine = next((i for i, (held, _, _) in enumerate(parts) if held == value), None)
    if mine is None:
        return text
    if len(parts) == 1:
        return drop(text, key)
    spans = [(start, stop) for _, start, stop in parts]
    return _cut(text, spans, spans[mine])


def empty(text: str, key: str) -> str:
    """Leave nothing in the array `key`, which must be there."""
    member = next(m for m in members(text) if m.key == key)
    return f"{text[: member.value_start]}[]{text[member.stop :]}"


def _put_member(text: str, key: str, written: str) -> str:
    at = _skip(text, 0) + 1
    space = _space_after(text, at)
    entry = f"{json.dumps(key)}: {written}"
    if not members(text):
        return f"{text[:at]}{entry}{text[at:]}"
    return f"{text[: at + len(space)]}{entry},{space or ' '}{text[at + len(space) :]}"


def _cut(text: str, spans: list[tuple[int, int]], span: tuple[int, int]) -> str:
    """Take `span` out of the `spans` of a list, with the comma that it needs no more."""
    index = spans.index(span)
    if index + 1 < len(spans):
        return text[: span[0]] + text[spans[index + 1][0] :]
    begin = spans[index - 1][1] if index else span[0]
    return text[:begin] + text[span[1] :]


def _value(text: str, at: int) -> tuple[Any, int]:
    try:
        value, stop = _decoder.raw_decode(text, at)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return value, stop


def _expect(text: str, at: int, token: str) -> int:
    if text[at : at + 1] != token:
        raise JSONDecodeError(f"expected {token!r}", text, at)
    return at + 1


def _skip(text: str, at: int) -> int:
    return at + len(_space_after(text, at))


def _space_after(text: str, at: int) -> str:
    match = _SPACE.match(text, at)
    assert match is not None
    return match[0]
