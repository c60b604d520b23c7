"""`p2pdist run`: a container of an image whose layers are elsewhere, without an engine."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.mount import state_dir_option
from p2pdist.cli.options import mirror_option, of_platform


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("image")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@mirror_option("Mirror to read from")
@of_platform
@state_dir_option
@click.option(
    "-e", "--env", "variables", multiple=True, metavar="NAME=VALUE", help="As often as you like."
)
@click.option(
    "-v",
    "--volume",
    "volumes",
    multiple=True,
    metavar="HOST:PATH[:ro]",
    help="A directory or file of this host, in the container.",
)
@click.option("-w", "--workdir", help="Where the command begins, in the container.")
@click.option("-u", "--user", metavar="USER[:GROUP]", help="Names of the image, or numbers.")
@click.option("--read-only", is_flag=True, help="Nothing can be written but volumes and /dev/shm.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    help="Seconds until it has to have begun.",
)
def run(
    image: str,
    command: tuple[str, ...],
    endpoint: str,
    platform_text: str | None,
    state_dir: Path,
    variables: tuple[str, ...],
    volumes: tuple[str, ...],
    workdir: str | None,
    user: str | None,
    read_only: bool,
    timeout_s: float | None,
) -> int:
    """Run COMMAND, or what IMAGE itself names, in a container of IMAGE.

    It starts before the layers are here: what it reads is fetched then, from near peers, and
    checked. For hosts without an engine, and for a look: it has the network of the host, and what
    it writes is gone when it ends. Root only; needs runc or crun. Exits as the command does.

    \b
    Examples:
      p2pdist run alpine:3.20
      p2pdist run python:3.12 python3 -c 'import sys; print(sys.version)'
      p2pdist run -v $PWD:/work -w /work node:22 npm test
    """
    from p2pdist.cli.mounting import MountJob, mount_remote
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.running import Wanted, look, run_container, runtime, volume
    from p2pdist.cli.terminating import terminable
    from p2pdist.oci.reference import parse_reference

    try:
        reference, platform = parse_reference(image), platform_of(platform_text)
        wanted = Wanted(
            command, variables, [volume(text) for text in volumes], workdir, user, read_only
        )
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist run --help`") from None
    if os.geteuid() != 0:
        raise CommandError(
            "only root can run containers", Exit.USAGE, "copy files with `p2pdist cp`"
        )
    program = runtime()
    job = MountJob(reference, platform, endpoint, state_dir, None, suid=True, dev=True)
    mounted = asyncio.run(terminable(mount_remote(job, timeout_s, look)))
    if isinstance(mounted, Exit):
        return mounted
    return run_container(program, mounted, wanted, terminal=sys.stdin.isatty())
