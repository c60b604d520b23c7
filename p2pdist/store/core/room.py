"""What may come into the store, and what has to go for it.

Room is reserved before the first byte, so that many that come at once do not each find the same
room; and nothing goes for what would not fit all the same.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from p2pdist.errors import StoreError
from p2pdist.model.ids import Digest

# Manifests, configs and small layers may have this share for good; what is beyond it goes before
# any blob. 1 % of 100 GB holds 100,000 of them.
SMALL_SHARE: Final = 0.01


class Rank(enum.IntEnum):
    """Who goes first."""

    ASIDE = 0
    """Its map does not hold here."""
    UNPROVEN = 1
    """Its map is open and nobody fetches it: the rest may never come, and its size is a claim."""
    BLOB = 2
    SMALL = 3
    """Within the share of small ones: only if blobs alone do not make the room."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Something in the store that may go; what is in use or pinned is none."""

    digest: Digest
    nbytes: int
    rank: Rank
    used_at_s: float


@dataclass(eq=False, slots=True)
class Promise:
    """Room for blobs that are to come, each until it does."""

    sizes: dict[Digest, int] = field(default_factory=dict)


class Room:
    """Pure. `used` and `free` are told at each call; what is reserved is in neither of them yet."""

    def __init__(self, max_bytes: int, *, high_watermark: float, low_watermark: float) -> None:
        """Eviction starts above `high_watermark` of `max_bytes` and stops below `low_watermark`."""
        self._max_bytes = max_bytes
        self._high_bytes = int(max_bytes * high_watermark)
        self._low_bytes = int(max_bytes * low_watermark)
        self._reserved_bytes = 0
        self._promised: dict[Digest, Promise] = {}

    @property
    def reserved_bytes(self) -> int:
        """What is promised is reserved, too."""
        return self._reserved_bytes

    def reserve(self, nbytes: int) -> None:
        self._reserved_bytes += nbytes

    def release(self, nbytes: int) -> None:
        """What was reserved is used by now, or will not be."""
        assert nbytes <= self._reserved_bytes
        self._reserved_bytes -= nbytes

    def promised(self, digest: Digest) -> bool:
        return digest in self._promised

    def promise(self, sizes: Mapping[Digest, int]) -> Promise:
        """Reserve room for each of these, none of which is promised to anybody yet."""
        assert not self._promised.keys() & sizes.keys()
        promise = Promise(dict(sizes))
        self._promised.update(dict.fromkeys(sizes, promise))
        self.reserve(sum(sizes.values()))
        return promise

    def claim(self, digest: Digest) -> None:
        """It comes now: what was promised is free, for it to be reserved in its true size."""
        promise = self._promised.pop(digest, None)
        if promise is not None:
            self.release(promise.sizes.pop(digest))

    def withdraw(self, promise: Promise) -> None:
        """What has not come of it will not come, or has to find its own room."""
        for digest in list(promise.sizes):
            self.claim(digest)

    def validate(self) -> None:
        """Raise AssertionError where this contradicts itself; for tests."""
        promises = {id(promise): promise for promise in self._promised.values()}.values()
        sizes = [size for promise in promises for size in promise.sizes.values()]
        assert all(digest in owner.sizes for digest, owner in self._promised.items())
        assert len(sizes) == len(self._promised)
        assert 0 <= sum(sizes) <= self._reserved_bytes <= self._max_bytes
        assert self._low_bytes <= self._high_bytes <= self._max_bytes

    def fits(self, nbytes: int, *, used: int, free: int) -> bool:
        """Within `max_bytes` and on the disk, as things are."""
        return self._within(self._max_bytes, nbytes, used, free)

    def ample(self, nbytes: int, *, used: int, free: int) -> bool:
        """Nothing has to go for it."""
        return self._within(self._high_bytes, nbytes, used, free)

    def plan(self, nbytes: int, *, used: int, free: int, tenants: Iterable[Tenant]) -> list[Tenant]:
        """Who has to go, first to last, for `nbytes` to come.

        Raises StoreError (`full`) when that would not be enough; then nobody should go.
        """
        if self.ample(nbytes, used=used, free=free):
            return []
        leaving: list[Tenant] = []
        left = 0
        for tenant in self._in_order(tenants):
            now = {"used": used - left, "free": free + left}
            enough = self.fits if tenant.rank is Rank.SMALL else self._reaches_low
            if enough(nbytes, **now):
                break
            leaving.append(tenant)
            left += tenant.nbytes
        if not self.fits(nbytes, used=used - left, free=free + left):
            raise StoreError(f"no room for {nbytes} bytes", full=True)
        return leaving

    def _in_order(self, tenants: Iterable[Tenant]) -> list[Tenant]:
        """The least recently used ones of the lowest rank first; small ones beyond their share
        count as blobs."""
        ordered = sorted(tenants, key=lambda tenant: (tenant.rank, tenant.used_at_s))
        small = [tenant for tenant in ordered if tenant.rank is Rank.SMALL]
        beyond = sum(tenant.nbytes for tenant in small) - int(self._max_bytes * SMALL_SHARE)
        many = 0
        while beyond > 0:
            beyond -= small[many].nbytes
            many += 1
        rest = [tenant for tenant in ordered if tenant.rank is not Rank.SMALL]
        first = [Tenant(t.digest, t.nbytes, Rank.UNPROVEN, t.used_at_s) for t in small[:many]]
        before = [tenant for tenant in rest if tenant.rank < Rank.BLOB]
        return [*before, *first, *rest[len(before) :], *small[many:]]

    def _reaches_low(self, nbytes: int, *, used: int, free: int) -> bool:
        return self._within(self._low_bytes, nbytes, used, free)

    def _within(self, limit: int, nbytes: int, used: int, free: int) -> bool:
        """Nothing at all passes always."""
        taken = used + self._reserved_bytes + nbytes
        return taken <= limit and free - self._reserved_bytes >= nbytes
