"""What a snapshotter does for an engine: layers that are shown where they can be, and else what any
other snapshotter does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar

from p2pdist.errors import P2pdistError
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.process import logs
from p2pdist.process.tasks import TaskOwner
from p2pdist.streaming.core.tar import UnfitLayer
from p2pdist.streaming.fuse.mounting import CannotMount
from p2pdist.streaming.snapshotter.core.mounts import Mount
from p2pdist.streaming.snapshotter.core.snapshots import Kind, Snapshot, SnapshotExists
from p2pdist.streaming.snapshotter.images import Declined, LazyImages
from p2pdist.streaming.snapshotter.layers_mount import LayersMount
from p2pdist.streaming.snapshotter.snapshot_store import SnapshotStore, Usage

log = logging.getLogger(__name__)

TARGET: Final = "containerd.io/snapshot.ref"
"""The label by which an engine asks for a layer that it need not fetch: its chain ID."""

MOUNTED_S: Final = 40.0
"""More than a mount takes that is made anew (`MountOptions.answer_s`); containerd waits longer."""

T = TypeVar("T")


class Broken(P2pdistError):
    """What a snapshot is made of cannot be shown at this moment; the text says why."""


class Snapshotter:
    """The table of snapshots is asked and changed in one thread, so an engine sees one thing after
    the other. Raises what `SnapshotStore` raises."""

    def __init__(
        self,
        store: SnapshotStore,
        images: LazyImages,
        mount: LayersMount,
        *,
        shown: Callable[[], None],
        whole_namespaces: Collection[str] = (),
    ) -> None:
        """`shown` is told of each layer that is shown. `whole_namespaces`: of the engine, where no
        layer is."""
        self._store = store
        self._shown = shown
        self._whole_namespaces = frozenset(whole_namespaces)
        self._images = images
        self._mount = mount
        self._line = ThreadPoolExecutor(1, "snapshots")
        self._mounting = ThreadPoolExecutor(1, "mount")
        """Who asks a mount whose process hangs, hangs with it; the table goes on."""
        self._cleaning = asyncio.Lock()
        self._to_clean = False
        self._tasks = TaskOwner("snapshotter")

    async def close(self) -> None:
        await self._tasks.close()
        self._line.shutdown()
        self._mounting.shutdown(wait=False)

    async def prepare(
        self, key: str, parent: str, kind: Kind, labels: Mapping[str, str]
    ) -> list[Mount]:
        """Return what to mount to use a new snapshot. Raises SnapshotExists also where the engine
        asked for a layer that is shown: it need not fetch it then."""
        target = labels.get(TARGET)
        if target is not None and kind is Kind.ACTIVE and self._may_show(key):
            await self._show(key, parent, labels, target)
        if parent:  # before there is a snapshot: an engine that is refused asks for the same again
            await self.have_shown(parent)
        await self.in_line(self._store.add, key, parent, kind, labels)
        return await self.in_line(self._store.mounts, key)

    async def mounts(self, key: str) -> list[Mount]:
        """Raises Broken where a layer below cannot be shown."""
        await self.have_shown(key)
        return await self.in_line(self._store.mounts, key)

    async def have_shown(self, key: str) -> None:
        """Return when what a snapshot lies upon can be read. Raises Broken."""
        if await self.in_line(self._store.shows_any, key):
            loop = asyncio.get_running_loop()
            try:
                async with asyncio.timeout(MOUNTED_S):
                    await loop.run_in_executor(self._mounting, self._mount.ensure)
            except TimeoutError:
                raise Broken(f"what shows its layers says nothing for {MOUNTED_S:g} s") from None
            except (CannotMount, OSError) as error:
                raise Broken(f"its layers cannot be shown: {error}") from None

    async def commit(self, name: str, key: str, labels: Mapping[str, str]) -> None:
        await self.in_line(self._store.commit, name, key, labels)

    async def remove(self, key: str) -> None:
        await self.in_line(self._store.remove, key)
        if not self._to_clean:  # an engine removes many at a time
            self._to_clean = True
            self._tasks.start(self.clean(), name="clean")

    async def clean(self) -> None:
        """Return when the disk has what removed snapshots took."""
        async with self._cleaning:
            self._to_clean = False
            await asyncio.to_thread(self._store.clean)

    async def get(self, key: str) -> Snapshot:
        return await self.in_line(self._store.get, key)

    async def find(self, filters: Sequence[str]) -> list[Snapshot]:
        return await self.in_line(self._store.find, filters)

    async def relabel(self, name: str, labels: Mapping[str, str], paths: Sequence[str]) -> Snapshot:
        return await self.in_line(self._store.relabel, name, labels, paths)

    async def usage(self, key: str) -> Usage:
        snapshot = await self.get(key)
        return await asyncio.to_thread(self._store.usage, snapshot)

    # --- layers that are shown ------------------------------------------------------------------

    def _may_show(self, key: str) -> bool:
        """containerd has the namespace in its keys (`<namespace>/<number>/<what a client says>`),
        and not always in what goes beside a call."""
        return key.partition("/")[0] not in self._whole_namespaces

    async def _show(self, key: str, parent: str, labels: Mapping[str, str], target: str) -> None:
        """Raise SnapshotExists if the layer is shown now; return if it is to be fetched."""
        try:
            chain = parse_digest(target)
        except ValueError:
            return  # an engine may call its layers anything
        if not await self.in_line(self._store.shows, chain, parent):
            try:
                await self._show_new(key, parent, labels, chain)
            except Declined as error:
                logs.event(log, logging.INFO, "layer.declined", chain=chain, error=str(error))
                return
        raise SnapshotExists(f"the layer {chain} is shown")

    async def _show_new(
        self, key: str, parent: str, labels: Mapping[str, str], chain: Digest
    ) -> None:
        """Raises Declined."""
        opened = await self._images.opened(chain, labels)
        if await self.in_line(self._store.unpacked_below, parent):
            try:
                needs = await asyncio.to_thread(opened.needs_those_below)
            except (OSError, UnfitLayer) as error:
                raise Declined(str(error)) from None
            if needs:
                raise Declined("what its directories are, layers say that were unpacked")
        with suppress(SnapshotExists):  # the same question twice at a time
            made = await self.in_line(self._store.show, key, parent, labels, opened)
            logs.event(
                log, logging.INFO, "layer.shown",
                chain=chain, digest=opened.layer.digest, image=str(opened.name), number=made.number,
            )  # fmt: skip
            self._shown()
            # A container mostly follows: what it needs is read while the engine asks for the rest.
            self._mounting.submit(self._mount.have_read, made.number)

    async def in_line(self, work: Callable[..., T], *arguments: object) -> T:
        """Have the table asked or changed, after what came before."""
        return await asyncio.get_running_loop().run_in_executor(self._line, work, *arguments)
