"""The Range header of a blob request (RFC 9110, section 14): one rule for cold and warm blobs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_UNIT: Final = re.compile(r"bytes[ \t]*=(.*)", re.IGNORECASE | re.DOTALL)
_SPEC: Final = re.compile(r"([0-9]*)-([0-9]*)")

# Beyond any blob; longer numbers would only cost time to convert.
_DIGITS_MAX: Final = 18


@dataclass(frozen=True, slots=True)
class Full:
    """Answer 200 with the whole blob."""


@dataclass(frozen=True, slots=True)
class Partial:
    """Answer 206 with the bytes `start` to `stop` (exclusive); never empty."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """Answer 416."""


@dataclass(frozen=True, slots=True)
class Multi:
    """Several ranges: answered like `Full`, because containers/image takes 200 but never 416."""


RangeAnswer = Full | Partial | Unsatisfiable | Multi


def parse_range(header: str | None, if_range: str | None, etag: str, size: int) -> RangeAnswer:
    """Decide what a GET of a blob of `size` bytes with the quoted `etag` is answered with.

    An unknown unit, a malformed header and a failed If-Range (compared strongly; a date never
    matches) count as no header at all.
    """
    match = _UNIT.fullmatch(header) if header is not None else None
    if match is None or (if_range is not None and if_range.strip() != etag):
        return Full()
    specs = [stripped for spec in match[1].split(",") if (stripped := spec.strip(" \t"))]
    if len(specs) != 1:
        return Multi() if specs else Full()
    spec = _SPEC.fullmatch(specs[0])
    if spec is None or spec[0] == "-":
        return Full()
    return _single(spec[1], spec[2], size)


def _single(first: str, last: str, size: int) -> RangeAnswer:
    if first and last and _number(last) < _number(first):
        # RFC 9110 lets us ignore it; the OCI conformance suite fails a 200.
        return Unsatisfiable()
    if size == 0:
        # No Content-Range can name a part of nothing; Go's net/http answers 200 as well, for
        # clients that add a range to every request.
        return Full()
    if not first:
        length = min(_number(last), size)
        return Partial(size - length, size) if length else Unsatisfiable()
    start = _number(first)
    if start >= size:
        return Unsatisfiable()
    return Partial(start, min(_number(last) + 1, size) if last else size)


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _DIGITS_MAX else 10**_DIGITS_MAX
