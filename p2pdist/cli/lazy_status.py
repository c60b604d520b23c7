"""What `p2pdist status` says of images that are shown before they are here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from p2pdist.cli.amounts import age_text, size_text
from p2pdist.process.terminal import folded, printable

IMAGES_SHOWN = 10
"""More are counted; JSON has a hundred."""


def shown_facts(daemon: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of a snapshotter: what it shows, what was read of it, and who waits."""
    layers, images, reads = daemon["layers"], daemon["images"], daemon["reads"]
    facts = [("shows", f"{_some(len(images), 'image')}, {_some(sum(layers.values()), 'layer')}")]
    if images:
        facts.append(("layers", ", ".join(f"{n} {_PLACES[place]}" for place, n in layers.items())))
    for image in images[:IMAGES_SHOWN]:
        facts.append(("image", f"{image['image']}: {_size(image)}"))
    if len(images) > IMAGES_SHOWN:
        facts.append(("", f"and {len(images) - IMAGES_SHOWN} more"))
    facts.append(("read", _read(reads)))
    facts.append(("fetched", _fetched(reads["fetched_bytes"])))
    facts.append(("waiting", _waiting(reads)))
    return facts


_PLACES = {"elsewhere": "elsewhere", "here": "at the mirror of this host", "files": "are files"}


def mounts_of_host(state_dir: Path) -> list[dict[str, Any]]:
    """Those of `p2pdist mount` and `run`; none where this user may not look. Blocking."""
    from p2pdist.streaming.core.policy import Why
    from p2pdist.streaming.image_mount import mounts
    from p2pdist.streaming.read_counts import FILE_NAME, ReadCounts, read_counts

    found = []
    try:
        for place, plan in mounts(state_dir):
            reads = read_counts(place / FILE_NAME) or ReadCounts().reads()
            found.append(
                {
                    "directory": plan.target,
                    "image": plan.image,
                    "layers": len(plan.layers),
                    "mounted": os.path.ismount(plan.target),
                    "bytes": reads.read_bytes,
                    "fetched_bytes": {why.name.lower(): reads.fetched_bytes[why] for why in Why},
                    "waiting": reads.waiting,
                    "oldest_s": reads.oldest_s,
                }
            )
    except OSError:
        return []
    return found


def describe_mounts(mounts: Sequence[Mapping[str, Any]], columns: int | None = None) -> list[str]:
    """A block of aligned lines, or none; folded to `columns`."""
    if not mounts:
        return []
    lines = ["mounts"]
    for mount in mounts:
        gone = "" if mount["mounted"] else "  NOT MOUNTED ANY MORE"
        image = f"{mount['image']}, {_some(mount['layers'], 'layer')}"
        facts = [
            ("mount", f"{mount['directory']}{gone}"),
            ("", image),
            ("", f"read {size_text(mount['bytes'])}, fetched {_fetched(mount['fetched_bytes'])}"),
        ]
        if mount["waiting"]:
            facts.append(("", _waiting(mount)))
        for name, text in facts:
            lines += folded(f"  {name:<10}", printable(text), columns)
    return lines


def _some(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _size(image: Mapping[str, Any]) -> str:
    size, here = image["size_bytes"], image["here_bytes"]
    share = f", {here * 100 // size} % of it here" if size else ""
    return f"{_some(image['layers'], 'layer')}, {size_text(size)}{share}"


def _read(reads: Mapping[str, Any]) -> str:
    asked = reads["kept"] + reads["waited"] + reads["failed"]
    if not asked:
        return "nothing yet"
    text = f"{size_text(reads['bytes'])} of files in {_some(asked, 'read')}"
    if reads["waited"]:
        text += f", of which {reads['waited']} waited, {reads['waited_s']:.1f} s in all"
    return f"{text}; {reads['failed']} FAILED" if reads["failed"] else text


def _fetched(fetched: Mapping[str, int]) -> str:
    if not any(fetched.values()):
        return "nothing yet"
    parts = [f"{why} {size_text(nbytes)}" for why, nbytes in fetched.items() if nbytes]
    return f"{size_text(sum(fetched.values()))} ({', '.join(parts)})"


def _waiting(reads: Mapping[str, Any]) -> str:
    if not reads["waiting"]:
        return "nothing"
    count = _some(reads["waiting"], "read")
    oldest_s = reads["oldest_s"]
    return f"{count}, the oldest for {age_text(oldest_s)}" if oldest_s >= 1 else count
