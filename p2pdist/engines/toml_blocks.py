"""Marked blocks in TOML text: taken out again, they leave what they replaced."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import tomlkit

from p2pdist.engines import toml_text
from p2pdist.errors import ConfigError

BEGIN: Final = "# p2pdist: early starts; `p2pdist runtime uninstall` takes it out\n"
END: Final = "# p2pdist: end\n"
KEPT: Final = "#| "
"""Before a line that was there, and comes back."""
VALUE_LINES_MAX: Final = 256
"""A list that somebody wrote over many lines; `containerd config default` writes two."""
_BLOCK: Final = re.compile(
    rf"^[ \t]*{re.escape(BEGIN.rstrip())}\r?\n(.*?)^[ \t]*{re.escape(END.rstrip())}(?:\r?\n|\Z)",
    re.DOTALL | re.MULTILINE,
)


def marked(raw: bytes | None) -> bool:
    """Whether a block of ours is there."""
    return _BLOCK.search((raw or b"").decode(errors="replace")) is not None


def without_blocks(text: str) -> str:
    """Take all blocks out, and put back what they replaced."""
    return _BLOCK.sub(lambda match: _kept(match[1]), text)


def with_values(text: str, table: Sequence[str], values: Mapping[str, Any], path: Path) -> str:
    """Return `text` with `values` in `table`: those that are there are replaced, the others follow
    its header, or a header at the end. Raise ConfigError where no edit can be sure."""
    document = toml_text.parse(text.encode(), path)
    wanted, edited, fresh = document, text, {}
    held = toml_text.get(document, table)
    for key, value in values.items():
        wanted = toml_text.with_value(wanted, [*table, key], value)
        if not isinstance(held, dict) or key not in held:
            fresh[key] = value
        elif held[key] != value:
            edited = _replaced(edited, table, key, value)
    if fresh:
        edited = _added(edited, table, fresh)
    try:
        if toml_text.parse(edited.encode(), path) == wanted:
            return edited
    except ConfigError:
        pass  # a table that is defined twice that way
    raise ConfigError(
        f"{path} is written in a way that cannot be added to; put this there by hand:\n"
        f"{header(table)}\n{_lines(values)}"
    )


def block(lines: str) -> str:
    """`lines` between the marks."""
    return BEGIN + lines + END


def header(table: Sequence[str]) -> str:
    return f"[{'.'.join(tomlkit.key(name).as_string() for name in table)}]"


def _added(text: str, table: Sequence[str], values: Mapping[str, Any]) -> str:
    at = _after_header(text, table)
    if at is not None:
        return toml_text.insert_before(text, at, block(_lines(values)))
    end = len(toml_text.lines_of(text))
    return toml_text.insert_before(text, end, block(f"{header(table)}\n{_lines(values)}"))


def _replaced(text: str, table: Sequence[str], key: str, value: Any) -> str:
    """The same text where `key` cannot be found, which is nothing that was wanted."""
    lines = toml_text.lines_of(text)
    span = _span(lines, _after_header(text, table), key)
    if span is None:
        return text
    start, stop = span
    kept = "".join(f"{KEPT}{line.rstrip()}\n" for line in lines[start:stop])
    rest = "".join([*lines[:start], *lines[stop:]])
    return toml_text.insert_before(rest, start, block(kept + _lines({key: value})))


def _span(lines: Sequence[str], begin: int | None, key: str) -> tuple[int, int] | None:
    """The lines of `key` in the table whose first line is `begin`."""
    if begin is None:
        return None
    opens = re.compile(rf"\s*{re.escape(key)}\s*=")
    for start in range(begin, len(lines)):
        if lines[start].startswith("[") or toml_text.header_path(lines[start]) is not None:
            return None
        if opens.match(lines[start]):
            stops = range(start + 1, min(start + VALUE_LINES_MAX, len(lines)) + 1)
            stop = next((at for at in stops if _whole(lines[start:at], key)), None)
            return None if stop is None else (start, stop)
    return None


def _whole(lines: Sequence[str], key: str) -> bool:
    try:
        return set(tomllib.loads("".join(lines))) == {key}
    except (ValueError, RecursionError):
        return False


def _after_header(text: str, table: Sequence[str]) -> int | None:
    for number, line in enumerate(toml_text.lines_of(text)):
        if toml_text.header_path(line) == list(table):
            return number + 1
    return None


def _lines(values: Mapping[str, Any]) -> str:
    return "".join(f"  {key} = {_text(value)}\n" for key, value in values.items())


def _text(value: Any) -> str:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        value = inline
    return str(tomlkit.item(value).as_string())


def _kept(lines: str) -> str:
    marks = (line.lstrip(" \t") for line in toml_text.lines_of(lines))
    return "".join(line.removeprefix(KEPT) for line in marks if line.startswith(KEPT))
