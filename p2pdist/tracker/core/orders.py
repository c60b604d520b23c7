"""What the tracker's core has its shell do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from p2pdist.model.control import FromTracker


@dataclass(slots=True)
class Send:
    link: int
    message: FromTracker


@dataclass(slots=True)
class SendMany:
    """The same to many hosts: encoded once, sent slice by slice."""

    links: Sequence[int]
    message: FromTracker


@dataclass(slots=True)
class SendAll:
    """To every connected host."""

    message: FromTracker


@dataclass(slots=True)
class Close:
    link: int
    reason: str
    in_use: bool = False
    """Another host, which is connected, has this one's id."""
