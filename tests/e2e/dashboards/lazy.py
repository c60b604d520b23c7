"""A snapshotter without a kernel: what it tells is what is written here."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.model.members import Address
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.settings import Settings
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.core.policy import Why
from p2pdist.streaming.read_counts import Outcome, ReadCounts, counts_in
from p2pdist.streaming.snapshotter import daemon
from p2pdist.streaming.snapshotter.layer_files import FILES, write_layer
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from tests.fakes.layers_mount import Mounted
from tests.streaming.archives import archive, file, gzipped, index_of

PLAIN: Final = archive(file("f", b"content"))
BLOB: Final = gzipped(PLAIN)
IMAGE: Final = layered_image(
    ImageName("docker.io", "library/app"), [(digest_of(BLOB), len(BLOB))], [digest_of(PLAIN)]
)
READ_BYTES: Final = 6_000_000
FETCHED_BYTES: Final = {Why.DEMAND: 3_000_000, Why.AHEAD: 2_000_000, Why.EXPECTED: 1_000_000}
READS: Final = {Outcome.KEPT: 60, Outcome.WAITED: 30, Outcome.FAILED: 0}


@dataclass(frozen=True, slots=True)
class ToldSnapshotter:
    admin: str
    counts: ReadCounts

    def read(self) -> None:
        for outcome, count in READS.items():
            for _ in range(count):
                self.counts.read(READ_BYTES // sum(READS.values()), outcome)
        for why, nbytes in FETCHED_BYTES.items():
            self.counts.fetched(why, nbytes)
        with self.counts.waiting():
            pass


@asynccontextmanager
async def told_snapshotter(settings: Settings) -> AsyncIterator[ToldSnapshotter]:
    """It shows two layers, one of which became files."""
    root = settings.host.state_dir / "snapshotter"
    own = replace(
        settings.snapshotter,
        socket=settings.host.state_dir / "s.sock",
        mirror="http://127.0.0.1:1",
        admin_listen=Address("127.0.0.1", 0),
        fill=False,
        unpack=False,
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(daemon, "LayersMount", Mounted)
        async with daemon.running_snapshotter(replace(settings, snapshotter=own)) as running:
            for number in (1, 2):
                _show(root / "layers", number)
            (root / "layers" / "2" / FILES).mkdir()
            yield ToldSnapshotter(str(running.admin), counts_in(root))


def _show(layers: Path, number: int) -> None:
    index = layers.parent / "opening" / f"{number}.index"
    index.write_bytes(encode_index(index_of(BLOB)))
    write_layer(
        layers, number, OpenedLayer(IMAGE.name, IMAGE.layers[0], index, None, len(PLAIN)), []
    )
