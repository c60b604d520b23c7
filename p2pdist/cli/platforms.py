"""`--platform` of the commands that choose an image out of an index."""

from __future__ import annotations

from p2pdist.cli.pulling.client import Platform
from p2pdist.process.own_platform import own_platform


def platform_of(text: str | None) -> Platform:
    """Read `os/arch[/variant]`, by default that of this machine; raise ValueError for others."""
    parts = (text or own_platform()).split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{text!r} is no platform; expected os/arch, such as linux/arm64")
    return Platform(*parts)
