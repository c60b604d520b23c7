"""Interests in blobs that this node does not have yet: kept until it has, or nobody wishes it."""

from __future__ import annotations

from p2pdist.exchange.frames import Interest
from p2pdist.model.ids import Digest, HostId


class Wishes:
    """Pure. Cost per event: what the one host, or the one digest, holds. When full, the digest
    that was wished for first is forgotten."""

    def __init__(self, digests_max: int) -> None:
        self._digests_max = digests_max
        self._by_digest: dict[Digest, dict[HostId, Interest]] = {}
        self._by_host: dict[HostId, set[Digest]] = {}

    def __len__(self) -> int:
        return len(self._by_digest)

    def __contains__(self, digest: Digest) -> bool:
        return digest in self._by_digest

    def add(self, host: HostId, interest: Interest) -> None:
        if interest.digest not in self._by_digest and len(self) >= self._digests_max:
            self.take(next(iter(self._by_digest)))
        self._by_digest.setdefault(interest.digest, {})[host] = interest
        self._by_host.setdefault(host, set()).add(interest.digest)

    def take(self, digest: Digest) -> dict[HostId, Interest]:
        """Return who wishes for `digest`, and forget it."""
        hosts = self._by_digest.pop(digest, {})
        for host in hosts:
            self._drop_digest(host, digest)
        return hosts

    def withdraw(self, host: HostId, digest: Digest) -> None:
        hosts = self._by_digest.get(digest)
        if hosts is not None and hosts.pop(host, None) is not None:
            self._drop_digest(host, digest)
            if not hosts:
                del self._by_digest[digest]

    def forget(self, host: HostId) -> None:
        """It cannot be told any more."""
        for digest in list(self._by_host.get(host, ())):
            self.withdraw(host, digest)

    def _drop_digest(self, host: HostId, digest: Digest) -> None:
        digests = self._by_host[host]
        digests.discard(digest)
        if not digests:
            del self._by_host[host]
