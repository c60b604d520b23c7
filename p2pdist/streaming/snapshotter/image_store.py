"""Keeps an image store: what engines without snapshotters (Podman, Buildah, CRI-O) find there they
do not fetch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from p2pdist.errors import ConfigError, StoreError
from p2pdist.model.backoff import Backoff
from p2pdist.model.ids import parse_digest
from p2pdist.oci.layered_image import LayeredImage
from p2pdist.process import clock, logs
from p2pdist.process.tasks import TaskOwner
from p2pdist.streaming.snapshotter.core.image_store import (
    GZIP,
    PLAIN,
    ZSTD,
    StoredLayer,
    layer_ids,
    too_many,
    unused,
)
from p2pdist.streaming.snapshotter.core.snapshots import Snapshot, SnapshotExists
from p2pdist.streaming.snapshotter.image_store_files import ImageStoreFiles, LayerPlace
from p2pdist.streaming.snapshotter.image_store_use import NotKnown, mounted_from, named_in
from p2pdist.streaming.snapshotter.images import Declined, LazyImages
from p2pdist.streaming.snapshotter.mirror import Mirror, MirrorFault
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.snapshot_store import IMAGE_STORE, SnapshotStore
from p2pdist.streaming.snapshotter.snapshotter import Broken, Snapshotter

log = logging.getLogger(__name__)

CLEAN_S: Final = 600.0
RETRY_S: Final = 5.0
"""After a look that failed, or that could not tell what is in use; longer each time."""
KEPT_S: Final = 86_400.0
"""After it was asked for last a layer stays for this long in any case: a pull may be under way, and
an engine that we know nothing of may use it."""
AGAIN_S: Final = 1.0
"""After a question that the mirror did not take."""
_BLOB, _BYTES, _DIFF_ID, _DIFF_BYTES, _COMPRESSION = (
    "blob", "bytes", "diff-id", "diff-bytes", "compression",
)  # fmt: skip


class ImageStore:
    """`engines`: where engines that read the store have their own ones. Its layers are those of the
    snapshots whose names begin with IMAGE_STORE."""

    def __init__(
        self,
        store: SnapshotStore,
        snapshotter: Snapshotter,
        images: LazyImages,
        files: ImageStoreFiles,
        engines: Sequence[Path],
        *,
        shown: Callable[[], None],
        unix_s: Callable[[], float] = clock.unix_s,
        retry_s: float = RETRY_S,
    ) -> None:
        self._store = store
        self._snapshotter = snapshotter
        self._images = images
        self._files = files
        self._engines = engines
        self._shown = shown
        self._unix_s = unix_s
        self._retry_s = retry_s
        self._look = asyncio.Event()
        self._look.set()
        self._one = asyncio.Lock()
        """Of those who write the store."""

    async def begin(self) -> None:
        """Make the store what the snapshots say. Raises ConfigError, OSError."""
        await asyncio.to_thread(self._files.begin)
        await self._write()

    def changed(self) -> None:
        """Layers may have become plain files."""
        self._look.set()

    async def show(self, image: LayeredImage) -> None:
        """Return when all layers of an image are in the store. Raises Declined."""
        ids = list(layer_ids([layer.diff_id for layer in image.layers]))
        if too_many(len(ids), str(self._files.root)):
            raise Declined(f"{len(ids)} layers are more than can be mounted out of an image store")
        try:
            async with self._one:
                await self._show(image, ids)
            await self._snapshotter.have_shown(f"{IMAGE_STORE}{ids[-1]}")
        except (Broken, StoreError, ConfigError, OSError) as error:
            raise Declined(str(error)) from None

    async def run(self) -> None:
        """Look through it for ever."""
        again = Backoff(first_s=self._retry_s, max_s=CLEAN_S, rng=Random())  # noqa: S311  # no secret
        pause_s = CLEAN_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._look.wait()
            self._look.clear()
            if await self.look_through():
                again.reset()
                pause_s = CLEAN_S
            else:
                pause_s = again.next_delay_s()

    async def look_through(self) -> bool:
        """Show what is unpacked from where that is, and remove what nobody uses; whether nothing
        was in the way."""
        async with self._one:
            try:
                known = await self._remove_unused()
                await self._write()
            except (StoreError, ConfigError, OSError) as error:
                logs.event(log, logging.WARNING, "image-store.failed", error=str(error))
                return False
            return known

    async def _show(self, image: LayeredImage, ids: list[str]) -> None:
        known = await self._layers()
        if any(layer not in known for layer in ids):
            opened = await self._images.all_of(image)
            below = ""
            for layer, found in zip(ids, opened, strict=True):
                if layer not in known:
                    await self._add(layer, below, found)
                below = layer
            await self._write()
            self._shown()
        await asyncio.to_thread(self._asked_for, ids)

    async def _add(self, layer: str, below: str, opened: OpenedLayer) -> None:
        parent = f"{IMAGE_STORE}{below}" if below else ""
        labels = {
            _BLOB: opened.layer.digest,
            _BYTES: str(opened.layer.size_bytes),
            _DIFF_ID: opened.layer.diff_id,
            _DIFF_BYTES: str(opened.diff_bytes),
            _COMPRESSION: str(_compression(opened)),
        }
        with contextlib.suppress(SnapshotExists):
            show, name = self._store.show, f"{IMAGE_STORE}{layer}"
            made = await self._snapshotter.in_line(show, name, parent, labels, opened)
            logs.event(
                log, logging.INFO, "layer.shown",
                chain=opened.layer.chain_id, digest=opened.layer.digest, image=str(opened.name),
                number=made.number,
            )  # fmt: skip

    def _asked_for(self, ids: Sequence[str]) -> None:
        for layer in ids:
            self._files.asked_for(layer)

    async def _layers(self) -> dict[str, StoredLayer]:
        found = await self._snapshotter.in_line(self._store.of_image_store)
        return {layer.id: layer for layer in map(_stored, found)}

    async def _write(self) -> None:
        layers = await self._layers()

        await asyncio.to_thread(self._put, layers)

    def _put(self, layers: dict[str, StoredLayer]) -> None:
        """Blocking. Raises OSError."""
        store = self._store
        places = {
            layer.id: LayerPlace(store.place_of(layer.number), store.recipe_of(layer.number))
            for layer in layers.values()
        }
        self._files.put(layers, places)

    async def _remove_unused(self) -> bool:
        """Whether it can be told what is in use. Raises StoreError, OSError."""
        layers = await self._layers()
        try:
            gone = await asyncio.to_thread(self._unused, layers)
        except NotKnown as error:
            logs.event(log, logging.INFO, "image-store.kept", error=str(error))
            return False
        if not gone:
            return True
        left = {name: layer for name, layer in layers.items() if name not in gone}
        await asyncio.to_thread(self._put, left)  # an engine hears of it first
        for layer in gone:
            await self._snapshotter.remove(f"{IMAGE_STORE}{layer}")
        logs.event(log, logging.INFO, "image-store.removed", layers=len(gone))
        return True

    def _unused(self, layers: dict[str, StoredLayer]) -> list[str]:
        """Blocking. Raises NotKnown."""
        since_s = self._unix_s() - KEPT_S
        fresh = {layer for layer in layers if self._files.asked_since(layer, since_s)}
        if len(fresh) == len(layers):
            return []
        named, mounted = named_in(self._engines), mounted_from(self._files.root)
        gone = unused(layers, named, mounted, fresh)
        logs.event(
            log, logging.DEBUG, "image-store.looked",
            layers=len(layers), fresh=len(fresh), gone=len(gone),
            named=len(named & layers.keys()), mounted=len(mounted),
        )  # fmt: skip
        return gone


class ShowingWanted:
    """Shows what engines are about to pull, while the mirror lets them wait."""

    def __init__(self, mirror: Mirror, store: ImageStore) -> None:
        self._mirror = mirror
        self._store = store
        self._tasks = TaskOwner("wanted images")

    async def close(self) -> None:
        await self._tasks.close()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                wanted = await self._mirror.wanted_image()
            except MirrorFault as error:  # it may be about to start
                logs.event(log, logging.DEBUG, "wanted.not_told", error=str(error))
                await asyncio.sleep(AGAIN_S)
                continue
            if wanted is not None:
                show = self._show(wanted.number, wanted.image)
                self._tasks.start(show, name=str(wanted.image.name))

    async def _show(self, number: int, image: LayeredImage) -> None:
        try:
            await self._store.show(image)
        except Declined as error:
            logs.event(
                log, logging.INFO, "image-store.declined", image=str(image.name), error=str(error)
            )
        finally:
            with contextlib.suppress(MirrorFault):
                await self._mirror.settle_wanted(number)


def _compression(opened: OpenedLayer) -> int:
    if opened.layer.digest == opened.layer.diff_id:
        return PLAIN
    return ZSTD if opened.inflated else GZIP


def _stored(snapshot: Snapshot) -> StoredLayer:
    labels = snapshot.labels
    created = datetime.fromtimestamp(snapshot.created_ns // 10**9, UTC)
    return StoredLayer(
        id=snapshot.name.removeprefix(IMAGE_STORE),
        parent=snapshot.parent.removeprefix(IMAGE_STORE),
        number=snapshot.number,
        created=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        blob=parse_digest(labels[_BLOB]),
        blob_bytes=int(labels[_BYTES]),
        diff_id=parse_digest(labels[_DIFF_ID]),
        diff_bytes=int(labels[_DIFF_BYTES]),
        compression=int(labels[_COMPRESSION]),
    )
