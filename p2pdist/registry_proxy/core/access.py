"""What a proxy may hand out: the one rule that is asked on every way out of it."""

from __future__ import annotations

from collections.abc import Collection

from p2pdist.model.ids import Digest
from p2pdist.oci.names import ImageName
from p2pdist.swarm.core.links import Links


class Access:
    """Pure. An operator takes access back by the settings: what was read before stays where it
    lies, and is handed out by no way."""

    def __init__(
        self,
        upstreams: Collection[str],
        links: Links,
        *,
        accounts: Collection[str] = (),
        callers: Collection[str] = (),
    ) -> None:
        """`upstreams`: the canonical names of those that may be served to others, now. `accounts`:
        those that are read with an account, so that not everybody could read the same there.
        `callers`: those that decide by the credentials of each caller; here they are for nobody."""
        self._upstreams = frozenset(upstreams)
        self._accounts = frozenset(accounts)
        self._callers = frozenset(callers)
        self.links = links

    def may_serve(self, name: ImageName) -> bool:
        return name.upstream in self._upstreams

    def by_caller(self, name: ImageName) -> bool:
        """Why it may not be served: only whoever asks for it in person may read it."""
        return name.upstream in self._callers

    def servable(self, digest: Digest) -> bool:
        """Some repository that may be served has it. What nobody named is not known to be."""
        return any(self.may_serve(name) for name in self.links.where(digest))

    def must_show(self, name: ImageName, digest: Digest) -> bool:
        """The registry of `name` is to show that it has `digest` before ours goes out under `name`.

        It came, or may have come, by another registry's account; that one of the list says that it
        has the same, in a manifest or a HEAD, is a way to read what somebody else may read.
        """
        has = self.links.upstreams(digest)
        if has.get(name.upstream, False):
            return False
        return any(host in self._accounts for host in has if host != name.upstream)

    def where(self, digest: Digest) -> list[ImageName]:
        """The repositories through which it may be fetched and served, the latest first."""
        return [name for name in self.links.where(digest) if self.may_serve(name)]
