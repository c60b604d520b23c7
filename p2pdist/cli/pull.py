"""`p2pdist pull`: an image through the local mirror, to a file or just into the peer's store."""

from __future__ import annotations

import asyncio
import platform as machine
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError

if TYPE_CHECKING:
    from p2pdist.cli.pulling.client import Platform, Progress, PulledImage
    from p2pdist.cli.pulling.outputs import Output
    from p2pdist.oci.reference import Reference

# As Go and the registries call what the kernel calls otherwise.
ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


@click.command()
@click.argument("image")
@click.option("-o", "--output", "output_text", metavar="oci:DIR|docker-archive:FILE")
@click.option(
    "--endpoint",
    envvar="P2PDIST_ENDPOINT",
    default="http://127.0.0.1:5300",
    show_default=True,
    help="Mirror to pull from (variable P2PDIST_ENDPOINT).",
)
@click.option("--platform", "platform_text", metavar="OS/ARCH[/VARIANT]", help="Default: this one.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "bar", "plain", "json"]),
    default="auto",
    show_default=True,
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help="Seconds for all of it.")
@click.option("-q", "--quiet", is_flag=True, help="No progress, no summary.")
def pull(
    image: str,
    output_text: str | None,
    endpoint: str,
    platform_text: str | None,
    progress: str,
    timeout_s: float | None,
    quiet: bool,
) -> None:
    """Pull IMAGE through the local mirror and check every byte.

    Without -o it only fetches: the image then lies in the peer's store and in the swarm. Prints the
    digest of the image's manifest; progress goes to stderr.

    \b
    Examples:
      p2pdist pull alpine:3.20
      p2pdist pull ghcr.io/team/app:1 -o oci:./app
      p2pdist pull alpine -o docker-archive:alpine.tar && docker load -i alpine.tar
    """
    from p2pdist.cli.pulling.outputs import parse_output
    from p2pdist.cli.pulling.progress import progress_for
    from p2pdist.oci.reference import parse_reference

    try:
        reference = parse_reference(image)
        output = parse_output(output_text) if output_text else None
        chosen = _platform(platform_text)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist pull --help`") from None
    if output is not None:
        output.check()
    shown = progress_for(progress, quiet=quiet)
    began_s = time.monotonic()
    pulled = asyncio.run(_run(reference, chosen, endpoint, output, shown, timeout_s))
    if not quiet and progress != "json":
        _summarize(pulled, time.monotonic() - began_s)
    click.echo(pulled.digest)


async def _run(
    reference: Reference,
    platform: Platform,
    endpoint: str,
    output: Output | None,
    progress: Progress,
    timeout_s: float | None,
) -> PulledImage:
    import aiohttp

    from p2pdist.cli.pulling.client import SILENCE_S, PullClient

    place = output.path.parent if output is not None else None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    with tempfile.TemporaryDirectory(prefix=".p2pdist-pull-", dir=place) as directory:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        ):
            client = PullClient(session, endpoint, progress)
            pulled = await client.pull(reference, platform, Path(directory))
        if output is not None:
            await asyncio.to_thread(output.write, pulled)
        return pulled


def _platform(text: str | None) -> Platform:
    """Read `os/arch[/variant]`; raise ValueError for anything else."""
    from p2pdist.cli.pulling.client import Platform

    if text is None:
        name = machine.machine()
        return Platform("linux", ARCHITECTURES.get(name, name))
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"{text!r} is no platform; expected os/arch, such as linux/arm64")
    return Platform(*parts)


def _summarize(pulled: PulledImage, seconds: float) -> None:
    from p2pdist.cli.status import size_text

    total = sum(blob.size for blob in pulled.blobs)
    rate = size_text(total / max(seconds, 0.001))
    text = f"pulled {pulled.reference.name}: {size_text(total)} in {seconds:.1f} s ({rate}/s)"
    print(text, file=sys.stderr)
