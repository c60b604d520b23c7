"""The proxies of other datacenters, which are asked before upstream is."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from p2pdist.errors import UpstreamError
from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.process import logs
from p2pdist.registry.ports import Manifest, TagPage

log = logging.getLogger(__name__)

T = TypeVar("T")

# A parent that is asked first must leave upstream its own part of the 8 s for a manifest.
PARENT_S: Final = 3.0


class Parent(Protocol):
    """A proxy of another datacenter: it may know what we would have to ask upstream."""

    async def manifest(self, name: ImageName, reference: str, *, timeout_s: float) -> Manifest: ...

    async def introduce(self, name: ImageName, digest: Digest, *, timeout_s: float) -> int: ...

    async def tags(self, name: ImageName, query: str, *, timeout_s: float) -> TagPage: ...

    async def referrers(
        self, name: ImageName, digest: Digest, artifact_type: str | None, *, timeout_s: float
    ) -> Manifest: ...


class Parents:
    def __init__(self, parents: Sequence[Parent]) -> None:
        self._parents = parents

    async def first(self, ask: Callable[[Parent], Awaitable[T]]) -> T | None:
        """The first answer that is one; upstream is there for all that parents do not know."""
        for parent in self._parents:
            try:
                return await ask(parent)
            except (UpstreamError, ValueError) as error:
                logs.event(log, logging.INFO, "parent.no_answer", error=str(error))
        return None
