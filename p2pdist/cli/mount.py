"""`p2pdist mount` and `unmount`: an image's files at a directory, before its layers are here."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import mirror_option, of_platform

STATE_DIR = Path("/var/lib/p2pdist/mounts")

state_dir_option = click.option(
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
@state_dir_option
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
    from p2pdist.cli.mounting import MountJob, mount_remote, summary
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.terminating import terminable
    from p2pdist.oci.reference import parse_reference

    try:
        reference, platform = parse_reference(image), platform_of(platform_text)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist mount --help`") from None
    if os.geteuid() != 0:
        raise CommandError("only root can mount", Exit.USAGE, "copy files with `p2pdist cp`")
    job = MountJob(reference, platform, endpoint, state_dir, directory.absolute(), suid, dev)
    began_s = time.monotonic()
    done = asyncio.run(terminable(mount_remote(job, timeout_s, summary)))
    if isinstance(done, Exit):
        return done
    if not quiet:
        took_s = time.monotonic() - began_s
        click.echo(f"{done.seen} in {took_s:.1f} s", err=True)
    return Exit.DONE


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@state_dir_option
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
