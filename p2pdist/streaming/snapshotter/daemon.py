"""The snapshotter of a host, from its settings to its socket."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import aiohttp
import grpc.aio

from p2pdist.errors import ConfigError
from p2pdist.model.members import Address
from p2pdist.process import clock, logs
from p2pdist.process.admin import AdminServer
from p2pdist.process.daemon import notify
from p2pdist.process.files import OPEN_FLAGS, private_directory
from p2pdist.process.tasks import TaskOwner
from p2pdist.settings import Settings
from p2pdist.settings_json import as_json
from p2pdist.streaming.snapshotter.coming import ComingImages
from p2pdist.streaming.snapshotter.filling import Filling
from p2pdist.streaming.snapshotter.image_store import ImageStore, ShowingWanted
from p2pdist.streaming.snapshotter.image_store_files import ImageStoreFiles
from p2pdist.streaming.snapshotter.images import LazyImages
from p2pdist.streaming.snapshotter.inventory import Inventory
from p2pdist.streaming.snapshotter.layers_mount import LayersMount
from p2pdist.streaming.snapshotter.mirror import Mirror
from p2pdist.streaming.snapshotter.report import Report
from p2pdist.streaming.snapshotter.service import handler
from p2pdist.streaming.snapshotter.snapshot_store import SnapshotStore
from p2pdist.streaming.snapshotter.snapshotter import Snapshotter
from p2pdist.streaming.snapshotter.tracing import Tracing
from p2pdist.streaming.snapshotter.unpacking import Unpacking

log = logging.getLogger(__name__)

GRACE_S: Final = 5.0
"""For answers under way when it ends."""
SOCKET_BYTES_MAX: Final = 107
"""unix(7): `sun_path` without its end."""
MESSAGE_BYTES_MAX: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class RunningSnapshotter:
    admin: Address
    admin_server: AdminServer


async def run(settings: Settings, stop: asyncio.Event) -> None:
    """Run until `stop` is set. Raises ConfigError, StoreError, CannotMount, OSError."""
    async with running_snapshotter(settings) as running:
        notify("READY=1")
        await stop.wait()
        running.admin_server.draining = True


@asynccontextmanager
async def running_snapshotter(settings: Settings) -> AsyncIterator[RunningSnapshotter]:
    """Run a snapshotter for as long as the block lasts. What it shows goes on being shown."""
    own, root = settings.snapshotter, settings.host.state_dir / "snapshotter"
    if not own.mirror.startswith("http://"):
        raise ConfigError(f"snapshotter.mirror: a mirror is asked without TLS, not at {own.mirror}")
    async with AsyncExitStack() as stack:
        stack.enter_context(_alone(root))
        store = await asyncio.to_thread(SnapshotStore, root, clock.unix_ns)
        stack.callback(store.close)
        await asyncio.to_thread(store.adopt)
        for lacking in store.lacking():
            logs.event(log, logging.ERROR, "snapshotter.lacking", snapshot=lacking.name)
        mount = LayersMount(root, own.mirror)
        await asyncio.to_thread(mount.begin)
        session = await stack.enter_async_context(aiohttp.ClientSession(auto_decompress=False))
        mirror = Mirror(session, own.mirror)
        images = LazyImages(mirror, root / "opening")
        stack.push_async_callback(images.close)
        kept: ImageStore | None = None

        def unpacked() -> None:
            if kept is not None:
                kept.changed()

        unpacking = Unpacking(root, store.plans, unpacked, with_recipes=own.image_store)
        filling = Filling(mirror, store.lacking_bytes, unpacking.held)
        tracing = Tracing(mirror, lambda: list(store.layers.iterdir()))
        inventory = Inventory(store.plans, store.is_plain, lambda: filling.held)
        report = Report(settings, root, mount, inventory, images)
        stack.push_async_callback(report.close)
        tasks = TaskOwner("background")
        stack.push_async_callback(tasks.close)
        tasks.start(inventory.run(), name="inventory")
        tasks.start(report.run(), name="report")
        tasks.start(tracing.run(), name="traces")
        tasks.start(ComingImages(mirror, images).run(), name="coming images")
        if own.fill:
            tasks.start(filling.run(), name="fill")
        if own.unpack:
            tasks.start(unpacking.run(), name="unpack")

        def shown() -> None:
            filling.more()
            unpacking.more()

        snapshotter = Snapshotter(
            store, images, mount, shown=shown, whole_namespaces=own.whole_namespaces
        )
        stack.push_async_callback(snapshotter.close)
        await snapshotter.clean()
        if own.image_store:
            files = ImageStoreFiles(root / "images")
            engines = [Path(path) for path in own.image_store_engines]
            kept = ImageStore(store, snapshotter, images, files, engines, shown=shown)
            await kept.begin()
            showing = ShowingWanted(mirror, kept)
            stack.push_async_callback(showing.close)
            storing = TaskOwner("image store")
            stack.push_async_callback(storing.close)
            storing.start(kept.run(), name="image store")
            storing.start(showing.run(), name="wanted images")
        await stack.enter_async_context(_listening(own.socket, snapshotter))
        logs.event(log, logging.INFO, "snapshotter.listening", socket=str(own.socket))
        admin = AdminServer(
            own.admin_listen,
            status=report.status,
            samples=report.samples,
            ready=lambda: {"socket": True},
            degraded=report.health.names,
            durations=[report],
            names=settings.host.http_names,
            settings=partial(as_json, settings),
        )
        stack.push_async_callback(admin.close)
        yield RunningSnapshotter(await admin.start(), admin)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Raises ConfigError where another one works with this directory."""
    root.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    private_directory(root)
    fd = os.open(root / "lock", os.O_RDWR | os.O_CREAT | OPEN_FLAGS, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"another snapshotter works with {root}") from None
        yield
    finally:
        os.close(fd)


@asynccontextmanager
async def _listening(socket: Path, snapshotter: Snapshotter) -> AsyncIterator[None]:
    """Only root may connect: who asks for snapshots decides what root mounts. Raises ConfigError,
    OSError."""
    options = [("grpc.max_receive_message_length", MESSAGE_BYTES_MAX), ("grpc.so_reuseport", 0)]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers((handler(snapshotter),))
    with _place_for(socket):
        try:
            bound = server.add_insecure_port(f"unix:{socket}")
        except RuntimeError:
            bound = 0
    if not bound:
        raise ConfigError(f"snapshotter.socket: cannot listen at {socket}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(GRACE_S)
        await asyncio.to_thread(socket.unlink, missing_ok=True)


@contextmanager
def _place_for(socket: Path) -> Iterator[None]:
    """What is bound there in this block is for us alone."""
    if len(os.fsencode(socket)) > SOCKET_BYTES_MAX:
        raise ConfigError(f"snapshotter.socket: more than {SOCKET_BYTES_MAX} bytes: {socket}")
    socket.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    socket.unlink(missing_ok=True)  # of an earlier run: `_alone` says that nobody listens there
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
