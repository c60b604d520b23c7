"""What a check found: one line each."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Level(enum.StrEnum):
    PASS = "PASS"  # noqa: S105  # a verdict
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    """What was looked at, in one or two words."""
    level: Level
    text: str
    fix: str = ""
    """What to do about it; empty for PASS."""
    remote: bool = False
    """It is about another host: nothing here is set wrongly."""


def passed(check: str, text: str) -> Finding:
    return Finding(check, Level.PASS, text)


def warned(check: str, text: str, fix: str) -> Finding:
    return Finding(check, Level.WARN, text, fix)


def failed(check: str, text: str, fix: str, *, remote: bool = False) -> Finding:
    return Finding(check, Level.FAIL, text, fix, remote)


def registries_text(number: int) -> str:
    return "1 registry" if number == 1 else f"{number} registries"
