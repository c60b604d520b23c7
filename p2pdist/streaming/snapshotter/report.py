"""What a snapshotter tells of itself: status, metrics, and what keeps containers waiting."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from prometheus_client.core import HistogramMetricFamily

from p2pdist.model.health import Reason
from p2pdist.model.members import Place
from p2pdist.process.health import Health
from p2pdist.process.metrics import Sample, buckets_of, node_info
from p2pdist.settings import Settings
from p2pdist.streaming.core.policy import Why
from p2pdist.streaming.read_counts import FILE_NAME, Outcome, ReadCounts, Reads, read_counts
from p2pdist.streaming.snapshotter.images import LazyImages
from p2pdist.streaming.snapshotter.inventory import Inventory, Where
from p2pdist.streaming.snapshotter.layers_mount import LayersMount

ROLE: Final = "snapshotter"
LOOK_S: Final = 1.0
MOUNT_SILENT_S: Final = 5.0
"""How long a mount may take to say that it is there: one that is busy answers in milliseconds."""
WAIT_LONG_S: Final = 10.0
"""A read that waits for longer than this is one that somebody notices."""
IMAGES_TOLD: Final = 100


class Report:
    """On the event loop, but for `samples` and `family`: any thread."""

    def __init__(
        self,
        settings: Settings,
        root: Path,
        mount: LayersMount,
        inventory: Inventory,
        images: LazyImages,
    ) -> None:
        self._place = Place(settings.host.dc, settings.host.rack)
        self._host = settings.host.name or socket.gethostname()
        self._mount = mount
        self._counts = root / FILE_NAME
        self._inventory = inventory
        self._images = images
        self._reads = ReadCounts().reads()
        self._mounted = True
        self._asking = ThreadPoolExecutor(1, "is it mounted")
        self._began_s = asyncio.get_running_loop().time()
        self.health = Health()
        self.health.conditions = self.conditions

    async def close(self) -> None:
        self._asking.shutdown(wait=False)

    async def run(self) -> None:
        """Look at the mount and its counts, for ever."""
        loop, asked = asyncio.get_running_loop(), None
        while True:
            self._reads = await asyncio.to_thread(self._counted)
            # Who asks a mount whose process hangs, hangs with it: one thread does, and no second.
            asked = asked or loop.run_in_executor(self._asking, self._mount.answers)
            done, _ = await asyncio.wait([asked], timeout=MOUNT_SILENT_S)
            self._mounted = bool(done) and asked.result()
            asked = None if done else asked
            self.health.look()
            await asyncio.sleep(LOOK_S)

    def conditions(self) -> Mapping[Reason, str]:
        found = {}
        if not self._mounted:
            found[Reason.LAYERS_UNSHOWN] = f"{self._mount.path} does not answer"
        if self._reads.oldest_s >= WAIT_LONG_S:
            found[Reason.READS_WAIT] = (
                f"{self._reads.waiting} reads of containers wait, the oldest for"
                f" {self._reads.oldest_s:.0f} s"
            )
        return found

    def status(self) -> dict[str, Any]:
        """For `/api/v1/status`."""
        reads, tally = self._reads, self._inventory.tally
        uptime_s = asyncio.get_running_loop().time() - self._began_s
        images = sorted(tally.images.items(), key=lambda item: -item[1].size_bytes)
        return {
            "role": ROLE,
            "host_id": self._host,
            "dc": self._place.dc,
            "rack": self._place.rack,
            "uptime_s": round(uptime_s, 3),
            "layers": {where.value: tally.layers[where] for where in Where},
            "layer_bytes": {where.value: tally.nbytes[where] for where in Where},
            "images": [
                {
                    "image": name,
                    "layers": image.layers,
                    "size_bytes": image.size_bytes,
                    "here_bytes": image.here_bytes,
                }
                for name, image in images[:IMAGES_TOLD]
            ],
            "reads": {
                **{outcome.name.lower(): reads.outcomes[outcome] for outcome in Outcome},
                "bytes": reads.read_bytes,
                "fetched_bytes": {why.name.lower(): reads.fetched_bytes[why] for why in Why},
                "waited_s": round(reads.waited_s, 3),
                "waiting": reads.waiting,
                "oldest_s": reads.oldest_s,
            },
            "degraded": self.health.status(),
        }

    def samples(self) -> Iterable[Sample]:
        reads, tally = self._reads, self._inventory.tally
        yield node_info(ROLE, self._place)
        yield from self.health.samples()
        name, text = "p2pdist_lazy_images_total", "Images that an engine asked for, by what it got."
        for decided, count in self._images.outcomes.items():
            yield Sample(name, "counter", text, {"outcome": decided}, count)
        for where in Where:
            labels = {"where": where.value}
            text = "Layers that are shown, by where their bytes are."
            yield Sample("p2pdist_lazy_layers", "gauge", text, labels, tally.layers[where])
            text = "The same in bytes of their blobs."
            yield Sample("p2pdist_lazy_layer_bytes", "gauge", text, labels, tally.nbytes[where])
        text = "Bytes of files that containers read through the mount, and the kernel did not have."
        yield Sample("p2pdist_lazy_read_bytes_total", "counter", text, {}, reads.read_bytes)
        text = "Bytes of blobs that were fetched for reads, by why."
        for why in Why:
            labels = {"why": why.name.lower()}
            value = reads.fetched_bytes[why]
            yield Sample("p2pdist_lazy_fetched_bytes_total", "counter", text, labels, value)
        text = "Such reads, by what became of them."
        for outcome in Outcome:
            labels = {"outcome": outcome.name.lower()}
            value = reads.outcomes[outcome]
            yield Sample("p2pdist_lazy_reads_total", "counter", text, labels, value)
        text = "Reads that wait now."
        yield Sample("p2pdist_lazy_reads_waiting", "gauge", text, {}, reads.waiting)
        text = "How long the oldest read that waits has waited."
        yield Sample("p2pdist_lazy_oldest_wait_seconds", "gauge", text, {}, reads.oldest_s)

    def family(self) -> HistogramMetricFamily:
        """How long reads waited for bytes from the mirror."""
        text = "How long a read waited for a piece of a layer from elsewhere."
        family = HistogramMetricFamily("p2pdist_lazy_wait_seconds", text, labels=[])
        family.add_metric([], buckets_of(self._reads.waits), sum_value=self._reads.waited_s)
        return family

    def _counted(self) -> Reads:
        """Blocking."""
        with contextlib.suppress(OSError):
            if (counted := read_counts(self._counts)) is not None:
                return counted
        return self._reads
