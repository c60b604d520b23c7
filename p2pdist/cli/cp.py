"""`p2pdist cp`: files out of an image, fetching only what they need."""

from __future__ import annotations

import asyncio
import json
import os
import sys
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
    from p2pdist.cli.copying.writing import Copied
    from p2pdist.cli.pulling.client import Platform
    from p2pdist.oci.reference import Reference
    from p2pdist.streaming.core.image_tree import Found


@click.command()
@click.argument("source", metavar="IMAGE:/PATH")
@click.argument("target", metavar="TARGET", type=click.Path())
@mirror_option("Mirror to read from")
@of_platform
@click.option(
    "-a", "--archive", is_flag=True, help="Keep owners, set-id bits, devices; needs root."
)
@click.option("-L", "--follow-link", is_flag=True, help="Copy what a link at PATH leads to.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=1), help="Seconds for all of it.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object at the end.")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
def cp(
    source: str,
    target: str,
    endpoint: str,
    platform_text: str | None,
    archive: bool,
    follow_link: bool,
    timeout_s: float | None,
    as_json: bool,
    quiet: bool,
) -> int:
    """Copy a file or directory out of an image to TARGET, without pulling the image.

    Only the parts of its layers are fetched that hold what is copied, from near peers, once the
    proxy has indexed them, as it does with every layer that it brings in. Layers without an index
    are fetched whole. Every byte is checked. A TARGET that is a directory gets the copy inside of
    it; `-` is standard output, for a single file.

    \b
    Examples:
      p2pdist cp alpine:3.20:/etc/os-release .
      p2pdist cp registry.example.com/team/app:1.4:/srv/app/static ./static
      p2pdist cp ghcr.io/team/app:2:/etc/app.toml - | diff - app.toml
    """
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.terminating import terminable

    try:
        reference, path = _source(source)
        platform = platform_of(platform_text)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE, "see `p2pdist cp --help`") from None
    if archive and os.geteuid() != 0:
        raise CommandError(
            "--archive makes files of other users", Exit.USAGE, "be root, or omit it"
        )
    if target == "-" and as_json:
        raise CommandError("stdout takes the file or the JSON object, not both", Exit.USAGE)
    _check(target)
    job = _Copy(reference, path, platform, endpoint, target, archive, follow_link)
    began_s = time.monotonic()
    done = asyncio.run(terminable(_run(job, timeout_s)))
    if isinstance(done, Exit):
        return done
    took_s = time.monotonic() - began_s
    if not quiet:
        click.echo(done.summary(took_s), err=True)
    if as_json:
        click.echo(json.dumps(done.record(source, target, took_s), indent=2))
    return Exit.DONE


@dataclass(frozen=True, slots=True)
class _Copy:
    reference: Reference
    path: str
    platform: Platform
    endpoint: str
    target: str
    archive: bool
    follow_link: bool


@dataclass(frozen=True, slots=True)
class _Done:
    copied: Copied
    digest: str
    fetched_bytes: int
    size_bytes: int

    def summary(self, took_s: float) -> str:
        from p2pdist.cli.amounts import size_text

        made = self.copied
        counts = [
            f"{count} {word if count == 1 else plural}"
            for count, word, plural in (
                (made.files, "file", "files"),
                (made.directories, "directory", "directories"),
                (made.links, "link", "links"),
            )
            if count
        ]
        left = f"; {made.left_out} devices and pipes left out" if made.left_out else ""
        what = ", ".join(counts) or "nothing"
        return (
            f"copied {what} ({size_text(made.nbytes)}) in {took_s:.1f} s: "
            f"fetched {size_text(self.fetched_bytes)} of {size_text(self.size_bytes)}{left}"
        )

    def record(self, source: str, target: str, took_s: float) -> dict[str, object]:
        made = self.copied
        return {
            "schema_version": 1,
            "exit_code": 0,
            "source": source,
            "target": target,
            "digest": self.digest,
            "files": made.files,
            "directories": made.directories,
            "links": made.links,
            "left_out": made.left_out,
            "copied_bytes": made.nbytes,
            "fetched_bytes": self.fetched_bytes,
            "image_bytes": self.size_bytes,
            "took_s": round(took_s, 3),
        }


def _check(target: str) -> None:
    """Before anything is fetched. Raises CommandError."""
    place = Path(target)
    if target == "-" or place.is_dir():
        return
    if target.endswith("/") or not place.parent.is_dir():
        missing = place if target.endswith("/") else place.parent
        raise CommandError(f"there is no directory {missing}", Exit.USAGE, "make it first")


def _source(text: str) -> tuple[Reference, str]:
    """Raise ValueError for what names no image and path; neither has `:/` within it."""
    from p2pdist.oci.reference import parse_reference

    image, colon, path = text.partition(":/")
    if not colon or not image:
        raise ValueError(f"{text!r} is no IMAGE:/PATH, such as alpine:3.20:/etc/os-release")
    return parse_reference(image), "/" + path


async def _run(job: _Copy, timeout_s: float | None) -> _Done:
    import aiohttp

    from p2pdist.cli.copying.image import remote_image
    from p2pdist.cli.copying.writing import Copied
    from p2pdist.cli.pulling.client import SILENCE_S, PullClient
    from p2pdist.cli.pulling.progress import progress_for
    from p2pdist.cli.pulling.workspace import workspace
    from p2pdist.streaming.core.tar import UnfitLayer

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    with workspace(None) as directory:
        async with (
            asyncio.timeout(timeout_s),
            aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
        ):
            client = PullClient(session, job.endpoint, progress_for("plain", quiet=True))
            async with remote_image(client, job.reference, job.platform, directory) as image:
                found = _found(image, job)
                try:
                    copied = await _copy(image, found, job)
                except UnfitLayer as error:
                    raise CommandError(f"{job.path}: {error}", Exit.INTEGRITY) from None
                assert isinstance(copied, Copied)
                return _Done(copied, image.image.digest, image.fetched_bytes, image.size_bytes)


def _found(image: RemoteImage, job: _Copy) -> Found:
    from p2pdist.streaming.core.image_tree import NoSuchFile

    try:
        return image.tree.find(os.fsencode(job.path), follow=job.follow_link)
    except NoSuchFile as error:
        raise CommandError(
            str(error), Exit.NOT_FOUND, "paths begin at the root of the image"
        ) from None


async def _copy(image: RemoteImage, found: Found, job: _Copy) -> Copied:
    import stat

    from p2pdist.cli.copying.writing import Copied, Copying

    if job.target == "-":
        if not stat.S_ISREG(found.node.mode):
            raise CommandError(f"{job.path} is not a file that `-` can take", Exit.USAGE)
        reader, node = image.layers[found.layer], found.node
        reader.expect([(node.offset, node.size_bytes)])
        async for piece in reader.pieces(node.offset, node.size_bytes):
            await asyncio.to_thread(sys.stdout.buffer.write, piece)
        await asyncio.to_thread(sys.stdout.buffer.flush)
        return Copied(files=1, nbytes=node.size_bytes)
    copying = Copying(image, job.archive)
    await copying.to(found, _place(job, found))
    return copying.copied


def _place(job: _Copy, found: Found) -> Path:
    """Where the copy goes: below TARGET if that is a directory, else there."""
    target = Path(job.target)
    if target.is_dir():
        name = os.fsdecode(found.path.rpartition(b"/")[2]) or job.reference.name.repository
        return target / name.replace("/", "-")
    return target
