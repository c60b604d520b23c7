"""Image names as p2pdist uses them inside: upstream and repository, both in one canonical form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageName:
    """`upstream` is the canonical registry host[:port]; `repository` is a valid repository name."""

    upstream: str
    repository: str

    def __str__(self) -> str:
        return f"{self.upstream}/{self.repository}"
