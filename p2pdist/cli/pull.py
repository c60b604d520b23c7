"""`p2pdist pull`: an image through the local mirror, to a file or just into the peer's store."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import mirror_option, of_platform

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from p2pdist.cli.pulling.client import Platform, Progress, PulledImage
    from p2pdist.cli.pulling.outputs import Output
    from p2pdist.oci.reference import Reference


def _complete_output(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from p2pdist.cli.completing import prefixed_places

    return prefixed_places(incomplete, {"oci": False, "docker-archive": True})


@click.command()
@click.argument("image")
@click.option(
    "-o",
    "--output",
    "output_text",
    metavar="oci:DIR|docker-archive:FILE",
    shell_complete=_complete_output,
    help="Where to write it; docker-archive:- is standard output.",
)
@mirror_option("Mirror to pull from")
@of_platform
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "plain", "json"]),
    default="auto",
    show_default=True,
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help="Seconds for all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object, not the digest.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def pull(
    image: str,
    output_text: str | None,
    endpoint: str,
    platform_text: str | None,
    progress: str,
    timeout_s: float | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Pull IMAGE through the local mirror and check every byte.

    Without -o it only fetches: the image then lies in the peer's store and in the swarm. Prints the
    digest of the image's manifest; progress goes to stderr.

    \b
    Examples:
      p2pdist pull alpine:3.20
      p2pdist pull ghcr.io/team/app:1 -o oci:./app
      p2pdist pull alpine -o docker-archive:- | docker load
      p2pdist pull alpine:3.20 --json | jq -r .digest
    """
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.pulling.outputs import parse_output
    from p2pdist.cli.pulling.progress import progress_for
    from p2pdist.cli.pulling.record import failure_record, pull_record, summary
    from p2pdist.cli.terminating import terminable
    from p2pdist.oci.reference import parse_reference

    try:
        reference = parse_reference(image)
        output = parse_output(output_text) if output_text else None
        platform = platform_of(platform_text)
        job = _Pull(reference, platform, endpoint, output, platform_text is not None)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist pull --help`") from None
    if output is not None:
        output.check()
        if output.path is None and as_json:
            raise CommandError("stdout takes the archive or the JSON object, not both", Exit.USAGE)
    began_s = time.monotonic()
    try:
        pulled = asyncio.run(terminable(_run(job, progress_for(progress, quiet=quiet), timeout_s)))
    except Exception as error:
        if as_json:
            click.echo(json.dumps(failure_record(reference, error), indent=2))
        raise
    if isinstance(pulled, Exit):
        return pulled
    took_s = time.monotonic() - began_s
    if not quiet and progress != "json":
        click.echo(summary(pulled, took_s), err=True)
    if as_json:
        click.echo(json.dumps(pull_record(pulled, output_text, took_s), indent=2))
    elif output is None or output.path is not None:
        click.echo(pulled.digest)
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class _Pull:
    """What to pull, from where, and where to."""

    reference: Reference
    platform: Platform
    endpoint: str
    output: Output | None
    insist: bool
    """No other platform will do, also where the image has one only."""


async def _run(job: _Pull, progress: Progress, timeout_s: float | None) -> PulledImage:
    import aiohttp

    from p2pdist.cli.pulling.client import SILENCE_S, PullClient
    from p2pdist.cli.pulling.workspace import workspace

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    with workspace(job.output.directory if job.output is not None else None) as directory:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        ):
            client = PullClient(session, job.endpoint, progress)
            pulled = await client.pull(job.reference, job.platform, directory, insist=job.insist)
        if job.output is not None:
            await _write(job.output, pulled)
        return pulled


async def _write(output: Output, pulled: PulledImage) -> None:
    """Do that in a thread, which has ended when this has: its files are taken away then."""
    stop = threading.Event()
    writing = asyncio.get_running_loop().run_in_executor(None, output.write, pulled, stop)
    try:
        await asyncio.shield(writing)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([writing])
        raise
