"""Mounts an image of a mirror, for the verbs that show it or run it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import aiohttp

from p2pdist.cli.amounts import size_text
from p2pdist.cli.copying.image import RemoteImage, remote_image
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.pulling.client import SILENCE_S, Platform, PullClient, title
from p2pdist.cli.pulling.progress import progress_for
from p2pdist.cli.terminating import beyond_recall
from p2pdist.oci.reference import Reference
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.fuse.mounting import CannotMount, MountOptions
from p2pdist.streaming.image_mount import mount_image, new_state, unmount_image
from p2pdist.streaming.mount_plan import MountPlan, PlannedLayer, write_plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MountJob:
    reference: Reference
    platform: Platform
    endpoint: str
    state_dir: Path
    target: Path | None
    """None: a directory of its own, beside what belongs to the mount."""
    suid: bool
    dev: bool


@dataclass(frozen=True, slots=True)
class Mounted(Generic[T]):
    place: Path
    """Where what belongs to the mount lies."""
    target: Path
    seen: T
    """What was asked of the image while it was open."""


async def mount_remote(
    job: MountJob, timeout_s: float | None, look: Callable[[RemoteImage, Path], Awaitable[T]]
) -> Mounted[T]:
    """Mount an image, and return what `look` says of it, which gets the target too. Raises
    CommandError; whoever is told that it failed has no mount."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    place = await asyncio.to_thread(new_state, job.state_dir)
    target, mounted = job.target or place / "image", False
    try:
        if job.target is None:
            await asyncio.to_thread(target.mkdir)
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        ):
            client = PullClient(session, job.endpoint, progress_for("plain", quiet=True))
            async with remote_image(client, job.reference, job.platform, place) as image:
                mounting = asyncio.get_running_loop().run_in_executor(
                    None, _mount, job, image, place, target
                )
                try:
                    await asyncio.shield(mounting)
                finally:
                    await asyncio.wait([mounting])  # a thread goes on when nobody wants it any more
                    mounted = mounting.exception() is None
                seen = await look(image, target)
        beyond_recall()
    except BaseException:  # to the very end: whoever is told that it failed has no mount
        if mounted:
            unmount_image(place, target, lazy=True)
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        raise
    return Mounted(place, target, seen)


async def summary(image: RemoteImage, target: Path) -> str:
    """What to say of a mount."""
    return (
        f"mounted {len(image.layers)} layers ({size_text(image.size_bytes)}) at "
        f"{target}, {size_text(image.fetched_bytes)} of them fetched,"
    )


def _mount(job: MountJob, image: RemoteImage, place: Path, target: Path) -> None:
    layers = []
    for number, reader in enumerate(image.layers):
        name = f"{number}.index"
        (place / name).write_bytes(encode_index(reader.index))
        file = reader.source.file
        layers.append(PlannedLayer(reader.index.blob, name, file.name if file is not None else ""))
    named = job.reference.name
    plan = MountPlan(
        title(job.reference),
        named.upstream,
        named.repository,
        job.endpoint,
        str(target),
        layers,
    )
    write_plan(place, plan)
    try:
        mount_image(place, MountOptions(nosuid=not job.suid, nodev=not job.dev))
    except CannotMount as error:
        raise CommandError(str(error), Exit.USAGE) from None
