"""What a proxy may hand out: the one rule that is asked on every way out of it."""

from __future__ import annotations

from collections.abc import Collection

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.links import Links


class Access:
    """Pure. An operator takes access back by the settings: what was read before stays where it
    lies, and is handed out by no way."""

    def __init__(self, upstreams: Collection[str], links: Links) -> None:
        """`upstreams`: the canonical names of those that may be served to others, now."""
        self._upstreams = frozenset(upstreams)
        self.links = links

    def may_serve(self, name: ImageName) -> bool:
        return name.upstream in self._upstreams

    def servable(self, digest: Digest) -> bool:
        """Some repository that may be served has it. What nobody named is not known to be."""
        return any(self.may_serve(name) for name in self.links.where(digest))

    def where(self, digest: Digest) -> list[ImageName]:
        """The repositories through which it may be fetched and served, the latest first."""
        return [name for name in self.links.where(digest) if self.may_serve(name)]
