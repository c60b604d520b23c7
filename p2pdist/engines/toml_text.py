"""Edits of TOML text that are checked by parsing: what is not touched keeps its bytes."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from p2pdist.errors import ConfigError

BOM: Final = "\ufeff"
SPACE: Final = BOM + " \t\r\n"


def parse(raw: bytes, path: Path) -> dict[str, Any]:
    """Raise ConfigError for what is no TOML."""
    try:
        return tomllib.loads(raw.decode().removeprefix(BOM))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is broken, mend it first: {error}") from None


def newline_of(text: str) -> str:
    return "\r\n" if "\r\n" in text else "\n"


def header_path(line: str) -> list[str] | None:
    """The keys of a table's header line; None for any other line."""
    stripped = line.strip()
    if not stripped.startswith("[") or stripped.startswith("[["):
        return None
    try:
        table = tomllib.loads(stripped)
    except ValueError:
        return None
    keys = []
    while table:
        ((key, table),) = table.items()
        keys.append(key)
    return keys


def lines_of(text: str) -> list[str]:
    """Lines with their ends; only LF ends one, as in TOML."""
    return [line + "\n" for line in text.split("\n")[:-1]] + [text.split("\n")[-1]]


def insert_before(text: str, index: int, block: str) -> str:
    """Put `block` before line `index` of `text`, or at its end, each on lines of its own."""
    lines = lines_of(text)
    before, after = "".join(lines[:index]), "".join(lines[index:])
    if before and not before.endswith("\n"):
        before += newline_of(text)
    return before + block.replace("\n", newline_of(text)) + after


def get(document: dict[str, Any], keys: Sequence[str]) -> Any:
    """The value at `keys`; None where it is not there."""
    value: Any = document
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return None
        value = value[key]
    return value


def tables(document: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The tables of `[[key]]`; whatever else stands there is none of them."""
    held = document.get(key)
    return [table for table in held if isinstance(table, dict)] if isinstance(held, list) else []


def with_value(document: dict[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """A copy of `document` with `value` at `keys`."""
    first, *rest = keys
    inner = document.get(first, {})
    if rest and not isinstance(inner, dict):
        inner = {}  # no text of ours makes a table of it, so that nothing equals this
    return {**document, first: with_value(inner, rest, value) if rest else value}
