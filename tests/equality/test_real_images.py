"""Every file of real images is the same, whoever lays them out (`make test-equality`)."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.e2e.streaming.listing import Excuse, Listing, differences
from tests.e2e.streaming.unpackers import Layer, unnamed_directories, unpackers
from tests.equality.images import STEPS, layers_of

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture
def work() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-eq-") as path:
        yield Path(path)


def excuses(layers: Sequence[Layer]) -> list[Excuse]:
    return [
        Excuse(
            "a directory that its topmost layer does not name has there the time of unpacking",
            frozenset({"mtime_ns"}),
            unnamed_directories(layers),
        ),
        Excuse(
            "containerd lets no layer say what the root is",
            frozenset({"mtime_ns", "mode"}),
            frozenset({b"/"}),
        ),
    ]


def counted_by_overlayfs(shown: Listing) -> Excuse:
    more = {path for path, entry in shown.items() if entry.links > len(entry.names)}
    why = "overlayfs counts names of a file that a layer above took away, as the layer has it"
    return Excuse(why, frozenset({"links"}), frozenset(more))


@pytest.mark.parametrize("name", STEPS)
async def test_a_real_image_is_the_same_files_for_all(work: Path, name: str) -> None:
    layers = await asyncio.to_thread(layers_of, name)
    known = excuses(layers)
    async with unpackers(work, layers) as every:
        shown = await every.shown()
        assert len(shown) > 5000
        assert differences(await every.mounted(), shown) == []
        assert differences(await every.unpacked(), shown) == []
        theirs = await every.by_containerd()
        assert differences(shown, theirs, known, all_needed=False) == []
        known.append(counted_by_overlayfs(shown))
        assert differences(shown, await every.by_umoci(), known, all_needed=False) == []
