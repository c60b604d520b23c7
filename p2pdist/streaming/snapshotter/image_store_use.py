"""Which layers of an image store are in use: by engines' own stores, and by what is mounted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from p2pdist.process.files import read_bounded_file
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
        namespace = _namespace(entry)
        if namespace in seen:
            continue
        if (text := _mountinfo(entry)) is not None:
            seen.add(namespace)
            found |= mounted(text, str(store))
    return found


def _namespace(process: Path) -> str:
    """One of its own where we may not see which it is: that takes more than reading its mounts."""
    try:
        return os.readlink(process / "ns" / "mnt")
    except OSError:
        return process.name


def _mountinfo(process: Path) -> str | None:
    """None: the process has ended. Raises NotKnown."""
    path = process / "mountinfo"
    try:
        with path.open("rb") as file:
            text = file.read(MOUNTINFO_BYTES_MAX + 1)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            return None
        raise NotKnown(f"{path}: {error}") from None
    if len(text) > MOUNTINFO_BYTES_MAX:
        raise NotKnown(f"{path} has more than {MOUNTINFO_BYTES_MAX} bytes")
    return text.decode("utf-8", "replace")
