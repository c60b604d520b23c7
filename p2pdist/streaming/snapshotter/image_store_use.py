"""Which layers of an image store are in use: by engines' own stores, and by what is mounted."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from p2pdist.runtime.files import read_bounded_file
from p2pdist.streaming.snapshotter.core.image_store import (
    mounted,
    named_by_images,
    named_by_layers,
)

JSON_BYTES_MAX: Final = 64 << 20
MOUNTINFO_BYTES_MAX: Final = 16 << 20
_SOURCES: Final[tuple[tuple[str, Callable[[bytes], set[str]]], ...]] = (
    ("overlay-layers/layers.json", named_by_layers),
    ("overlay-layers/volatile-layers.json", named_by_layers),
    ("overlay-images/images.json", named_by_images),
)


class NotKnown(Exception):
    """What is in use cannot be told; the text says why."""


def named_in(roots: Sequence[Path]) -> set[str]:
    """The layers that engines with their own stores at `roots` have images or containers of.
    Blocking. Raises NotKnown unless all of them can be read."""
    named: set[str] = set()
    for root in roots:
        if not (root / "overlay-layers").is_dir():
            raise NotKnown(f"{root} is no store of an engine")
        for name, names_of in _SOURCES:
            path = root / name
            try:
                body = read_bounded_file(path, JSON_BYTES_MAX)
                if body is None:
                    raise NotKnown(f"{path} has more than {JSON_BYTES_MAX} bytes")
                named |= names_of(body)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                raise NotKnown(f"{path}: {error}") from None
    return named


def mounted_from(store: Path, proc: Path = Path("/proc")) -> set[int]:
    """The numbers of layers of `store` that are part of a mount, in whatever namespace. Blocking.
    Raises NotKnown."""
    found: set[int] = set()
    seen: set[str] = set()
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):  # a process that has ended
            namespace = os.readlink(entry / "ns" / "mnt")
            if namespace in seen:
                continue
            with (entry / "mountinfo").open("rb") as file:
                text = file.read(MOUNTINFO_BYTES_MAX + 1)
            if len(text) > MOUNTINFO_BYTES_MAX:
                raise NotKnown(f"{entry}/mountinfo has more than {MOUNTINFO_BYTES_MAX} bytes")
            seen.add(namespace)
            found |= mounted(text.decode("utf-8", "replace"), str(store))
    return found
