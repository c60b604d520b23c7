"""What an engine mounts to use a snapshot (containerd, `plugins/snapshots/overlay`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pdist.streaming.snapshotter.core.snapshots import Kind

# What overlayfs looks for in layers of its own making: nothing here has them, and each look is a
# question to the file system below.
OVERLAY_OPTIONS: Final = ("index=off", "metacopy=off", "redirect_dir=nofollow", "xino=off")


@dataclass(frozen=True, slots=True)
class Mount:
    kind: str
    source: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Paths of one snapshot."""

    files: str
    """What its layer has."""
    work: str = ""
    """For overlayfs, of one that is written to."""


def mounts_of(kind: Kind, own: Places, below: Sequence[str]) -> list[Mount]:
    """`below`: where the files of those below it are, from the top one down."""
    if kind is Kind.ACTIVE:
        if not below:
            return [Mount("bind", own.files, ("rw", "rbind"))]
        written = (f"workdir={own.work}", f"upperdir={own.files}")
        return [_overlay(below, written)]
    # Nothing is ever written to a view: without a parent it is an empty directory.
    if len(below) <= 1:
        return [Mount("bind", below[0] if below else own.files, ("ro", "rbind"))]
    return [_overlay(below, ())]


def _overlay(below: Sequence[str], written: tuple[str, ...]) -> Mount:
    lower = f"lowerdir={':'.join(below)}"
    return Mount("overlay", "overlay", (*OVERLAY_OPTIONS, *written, lower))
