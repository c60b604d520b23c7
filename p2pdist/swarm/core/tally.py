"""How many hosts hold each chunk: one counter per chunk, kept as bit planes of integers.

Plane k has bit i set when bit k of the count of chunk i is 1, so that counting a whole set in or
out is a ripple carry over log2(hosts) integers: 2 µs for 4,096 chunks and 24 hosts, where a list of
counters needs one step per chunk.
"""

from __future__ import annotations

from p2pdist.model.bits import without


class Tally:
    """Counts of chunks; a set that is taken out must have been put in before."""

    __slots__ = ("_planes",)

    def __init__(self) -> None:
        self._planes: list[int] = []

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tally) and self._planes == other._planes

    __hash__ = None  # type: ignore[assignment]  # it changes

    def add(self, bits: int) -> None:
        """Count every chunk of `bits` once more."""
        carry, planes = bits, self._planes
        for k, plane in enumerate(planes):
            if not carry:
                return
            planes[k], carry = plane ^ carry, plane & carry
        if carry:
            planes.append(carry)

    def remove(self, bits: int) -> None:
        """Count every chunk of `bits` once less."""
        borrow, planes = bits, self._planes
        for k, plane in enumerate(planes):
            if not borrow:
                break
            planes[k], borrow = plane ^ borrow, without(borrow, plane)
        assert not borrow, "taken out more often than put in"
        while planes and not planes[-1]:
            planes.pop()

    def any(self) -> int:
        """The chunks that are counted at all."""
        bits = 0
        for plane in self._planes:
            bits |= plane
        return bits

    def counted(self, among: int) -> int:
        """Those of `among` that are counted at all."""
        bits = 0
        for plane in self._planes:
            bits |= plane & among
        return bits

    def at_least(self, count: int) -> int:
        """The chunks that are counted `count` times or more (`count` >= 1)."""
        assert count >= 1
        if count == 1:
            return self.any()
        if count.bit_length() > len(self._planes):
            return 0
        # Equal so far, from the highest plane down; more wherever a plane has a 1 and `count` none.
        more, equal = 0, self.any()
        for k in range(len(self._planes) - 1, -1, -1):
            plane = equal & self._planes[k]
            if count >> k & 1:
                equal = plane
            else:
                more |= plane
                equal ^= plane
        return more | equal

    def fewest(self, among: int) -> int:
        """Those of `among` that are counted the fewest times; 0 for none."""
        for plane in reversed(self._planes):
            among = without(among, plane) or among
        return among

    def clear(self) -> None:
        self._planes.clear()
