"""Ages and sizes, as people read them."""

from __future__ import annotations


def age_text(seconds: float) -> str:
    """`42 s`, `17 min`, `5 h`, `3 d`: rounded down, from two of the larger unit on."""
    for unit, length_s in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds // length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def size_text(nbytes: float) -> str:
    """`12.3 MB`: decimal units, as registries and runtimes show them."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 1000:
            return f"{nbytes:.0f} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"
