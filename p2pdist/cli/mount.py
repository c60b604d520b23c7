"""`p2pdist mount` and `unmount`: an image's files at a directory, before its layers are here."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import mirror_option, of_platform

if TYPE_CHECKING:
    from p2pdist.cli.copying.image import RemoteImage
    from p2pdist.cli.pulling.client import Platform
    from p2pdist.oci.reference import Reference

STATE_DIR = Path("/var/lib/p2pdist/mounts")

_state_dir = click.option(
    "--state-dir",
    type=click.Path(path_type=Path),
    default=STATE_DIR,
    show_default=True,
    help="Where what belongs to mounts lies.",
)


@click.command()
@click.argument("image")
@click.argument("directory", type=click.Path(path_type=Path))
@mirror_option("Mirror to read from")
@of_platform
@_state_dir
@click.option("--suid", is_flag=True, help="Let set-id bits count.")
@click.option("--dev", is_flag=True, help="Let devices be opened.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help="Seconds for all of it.")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
def mount(
    image: str,
    directory: Path,
    endpoint: str,
    platform_text: str | None,
    state_dir: Path,
    suid: bool,
    dev: bool,
    timeout_s: float | None,
    quiet: bool,
) -> int:
    """Mount IMAGE at DIRECTORY, read-only, without pulling it.

    What is read is fetched then, from near peers, and checked; layers that the proxy has not
    indexed are fetched first. The mount stays when this command has ended, and while the daemons
    restart: reads wait for them, for a minute, and then fail. Root only, as all mounts; Linux 6.9
    or later for a mount that survives its own worker. Take it away with `p2pdist unmount`.

    \b
    Examples:
      p2pdist mount alpine:3.20 /mnt
      grep -r PRETTY_NAME /mnt/etc
      p2pdist unmount /mnt
    """
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.terminating import terminable
    from p2pdist.oci.reference import parse_reference

    try:
        reference, platform = parse_reference(image), platform_of(platform_text)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist mount --help`") from None
    if os.geteuid() != 0:
        raise CommandError("only root can mount", Exit.USAGE, "copy files with `p2pdist cp`")
    job = _Mount(reference, platform, endpoint, directory.absolute(), state_dir, suid, dev)
    began_s = time.monotonic()
    done = asyncio.run(terminable(_run(job, timeout_s)))
    if isinstance(done, Exit):
        return done
    if not quiet:
        took_s = time.monotonic() - began_s
        click.echo(f"{done} in {took_s:.1f} s", err=True)
    return Exit.DONE


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@_state_dir
@click.option("-l", "--lazy", is_flag=True, help="Also while it is in use.")
def unmount(directory: Path, state_dir: Path, lazy: bool) -> int:
    """Take away what `p2pdist mount` mounted at DIRECTORY."""
    from p2pdist.streaming.fuse.mounting import CannotMount
    from p2pdist.streaming.image_mount import mounts, unmount_image

    target = directory.absolute()
    mine = [place for place, plan in mounts(state_dir) if plan.target == str(target)]
    if not mine:
        hint = f"mounts of this host lie in {state_dir}"
        raise CommandError(f"p2pdist mounted nothing at {target}", Exit.NOT_FOUND, hint)
    try:
        for place in mine:
            unmount_image(place, target, lazy=lazy)
    except CannotMount as error:
        hint = "somebody uses it; with -l it goes when they are done"
        raise CommandError(str(error), Exit.TEMPORARY, hint) from None
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class _Mount:
    reference: Reference
    platform: Platform
    endpoint: str
    target: Path
    state_dir: Path
    suid: bool
    dev: bool


async def _run(job: _Mount, timeout_s: float | None) -> str:
    """Return what to say of it."""
    import aiohttp

    from p2pdist.cli.copying.image import remote_image
    from p2pdist.cli.pulling.client import SILENCE_S, PullClient
    from p2pdist.cli.pulling.progress import progress_for
    from p2pdist.cli.status import size_text
    from p2pdist.cli.terminating import beyond_recall
    from p2pdist.streaming.image_mount import new_state, unmount_image

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    place = await asyncio.to_thread(new_state, job.state_dir)
    mounted = False
    try:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        ):
            client = PullClient(session, job.endpoint, progress_for("plain", quiet=True))
            async with remote_image(client, job.reference, job.platform, place) as image:
                mounting = asyncio.get_running_loop().run_in_executor(
                    None, _mount, job, image, place
                )
                try:
                    await asyncio.shield(mounting)
                finally:
                    await asyncio.wait([mounting])  # a thread goes on when nobody wants it any more
                    mounted = mounting.exception() is None
                said = (
                    f"mounted {len(image.layers)} layers ({size_text(image.size_bytes)}) at "
                    f"{job.target}, {size_text(image.fetched_bytes)} of them fetched,"
                )
        beyond_recall()
    except BaseException:  # to the very end: whoever is told that it failed has no mount
        if mounted:
            unmount_image(place, job.target, lazy=True)
        await asyncio.to_thread(shutil.rmtree, place, ignore_errors=True)
        raise
    return said


def _mount(job: _Mount, image: RemoteImage, place: Path) -> None:
    from p2pdist.cli.pulling.client import title
    from p2pdist.streaming.core.index import encode_index
    from p2pdist.streaming.fuse.mounting import CannotMount, MountOptions
    from p2pdist.streaming.image_mount import mount_image
    from p2pdist.streaming.mount_plan import MountPlan, PlannedLayer, write_plan

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
        str(job.target),
        layers,
    )
    write_plan(place, plan)
    try:
        mount_image(place, MountOptions(nosuid=not job.suid, nodev=not job.dev))
    except CannotMount as error:
        raise CommandError(str(error), Exit.USAGE) from None
