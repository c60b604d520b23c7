"""Sets as bits of one integer, at the least cost on long ones; none of them is negative.

CPython works on negative integers digit by digit: on 65,536 bits `a & ~b` takes ten times as long
as `a ^ (a & b)`, and so do `a & -a` and a count. But most sets that are looked at lie together,
such as the chunks of a run: these are shifted down first, which costs what they are long.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

WINDOW: Final = 512
_MASK: Final = (1 << WINDOW) - 1


def without(bits: int, others: int) -> int:
    """Those of `bits` that are not in `others`."""
    return bits ^ (bits & others)


def span(first: int, stop: int) -> int:
    """The bits from `first` to `stop` (exclusive)."""
    return ((1 << max(0, stop - first)) - 1) << first


def lowest(bits: int) -> int:
    """Index of the lowest set bit of a set that is not empty."""
    shift, near = 0, bits & _MASK
    if not near:
        shift, near = _together(bits)
    return shift + (near & -near).bit_length() - 1


def count_of(bits: int) -> int:
    """How many there are."""
    return _together(bits)[1].bit_count()


def run_length(bits: int, first: int, most: int) -> int:
    """How many bits are set from `first` on without a gap, `most` at most."""
    after = ~(bits >> first & ((1 << most) - 1))
    return (after & -after).bit_length() - 1


def first_missing(bits: int, start: int) -> int:
    """The lowest index >= `start` that is not set."""
    window = bits >> start & _MASK
    after = ~window if window != _MASK else ~(bits >> start)
    return start + (after & -after).bit_length() - 1


def ranges(bits: int) -> Iterator[tuple[int, int]]:
    """The set as ascending (first, count) pairs with gaps between them."""
    first, count = 0, 0
    for shift, window in _windows(bits):
        base = shift
        while window:
            skip = (window & -window).bit_length() - 1
            window >>= skip
            length = (~window & -~window).bit_length() - 1
            window >>= length
            if count and base + skip == first + count:  # it goes on from the window before
                count += length
            else:
                if count:
                    yield first, count
                first, count = base + skip, length
            base += skip + length
    if count:
        yield first, count


def indexes(bits: int) -> list[int]:
    """Those that are set, ascending."""
    found: list[int] = []
    if not bits:
        return found
    for shift, window in _windows(bits):
        while window:
            low = window & -window
            found.append(shift + low.bit_length() - 1)
            window ^= low
    return found


def _together(bits: int) -> tuple[int, int]:
    """How far `bits` can be shifted down, and what they are then: a set that lies within a window
    loses all zeros below that; another one is left alone."""
    shift = bits.bit_length() - WINDOW
    if shift <= 0:
        return 0, bits
    window = bits >> shift
    return (shift, window) if window << shift == bits else (0, bits)


def _windows(bits: int) -> list[tuple[int, int]]:
    """All of them in pieces (shift, bits), ascending; taken from the top, where that is cheap."""
    shift, near = _together(bits)
    if near.bit_length() <= WINDOW:
        return [(shift, near)]
    pieces = []
    while (shift := bits.bit_length() - WINDOW) > 0:
        window = bits >> shift
        pieces.append((shift, window))
        bits ^= window << shift
    pieces.append((0, bits))
    return pieces[::-1]
