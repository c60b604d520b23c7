"""What may come into the store, and what has to go for it.

Room is reserved before the first byte, so that many that come at once do not each find the same
room; and nothing goes for what would not fit all the same.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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


class Promise:
    """Somebody for whom room is kept for blobs that are to come."""


@dataclass(slots=True)
class _Kept:
    """Room for one blob, as long as any of `holders` wants it."""

    nbytes: int
    holders: list[Promise]


class Room:
    """Pure. `used` and `free` are told at each call; what is reserved is in neither of them yet."""

    def __init__(self, max_bytes: int, *, high_watermark: float, low_watermark: float) -> None:
        """Eviction starts above `high_watermark` of `max_bytes` and stops below `low_watermark`."""
        self._max_bytes = max_bytes
        self._high_bytes = int(max_bytes * high_watermark)
        self._low_bytes = int(max_bytes * low_watermark)
        self._reserved_bytes = 0
        self._kept: dict[Digest, _Kept] = {}

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

    def share(self, promise: Promise, sizes: Mapping[Digest, int]) -> dict[Digest, int]:
        """Keep for `promise`, too, what is kept for others of these; return the rest."""
        for digest in sizes.keys() & self._kept.keys():
            self._kept[digest].holders.append(promise)
        return {digest: size for digest, size in sizes.items() if digest not in self._kept}

    def promise(self, promise: Promise, sizes: Mapping[Digest, int]) -> None:
        """Reserve room for each of these, which is kept for nobody yet."""
        for digest, size in sizes.items():
            assert digest not in self._kept
            self._kept[digest] = _Kept(size, [promise])
            self.reserve(size)

    def claim(self, digest: Digest) -> None:
        """It comes now: what was kept is free, for it to be reserved in its true size."""
        kept = self._kept.pop(digest, None)
        if kept is not None:
            self.release(kept.nbytes)

    def withdraw(self, promise: Promise) -> None:
        """What has not come of it will not come, or has to find its own room."""
        for digest, kept in list(self._kept.items()):
            if promise in kept.holders:
                kept.holders.remove(promise)
                if not kept.holders:
                    self.claim(digest)

    def validate(self) -> None:
        """Raise AssertionError where this contradicts itself; for tests."""
        kept = self._kept.values()
        assert all(each.holders for each in kept)
        assert 0 <= sum(each.nbytes for each in kept) <= self._reserved_bytes <= self._max_bytes
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
