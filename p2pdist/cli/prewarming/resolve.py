"""Finds out, at a mirror or proxy, what the names of images stand for now."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import aiohttp

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.prewarming.trackers import all_of
from p2pdist.cli.pulling.client import SILENCE_S, PullClient
from p2pdist.cli.pulling.progress import Silent
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.jobs import JobImage
from p2pdist.oci.reference import Reference
from p2pdist.registry.job_images import resolve_image
from p2pdist.registry.ports import Manifest

AT_ONCE: Final = 8


class Resolver:
    """Reads manifests from the `/v2/` of `endpoint`; `session` is the caller's to close."""

    def __init__(self, endpoint: str, session: aiohttp.ClientSession) -> None:
        self._client = PullClient(session, endpoint, Silent())
        self._slots = asyncio.Semaphore(AT_ONCE)

    async def images(self, references: Sequence[Reference], platform: str) -> list[JobImage]:
        """Return all of them in order; raise CommandError for the first that cannot be had."""
        return await all_of([self._image(one, platform) for one in references])

    async def digest(self, reference: Reference) -> Digest:
        """Return what a tag names now; raise CommandError."""
        return (await self._manifest(reference, reference.target)).digest

    async def _image(self, reference: Reference, platform: str) -> JobImage:
        try:
            image = await resolve_image(reference, self._manifest)
        except ValueError as error:
            raise CommandError(f"{reference}: {error}", Exit.NOT_FOUND) from None
        if platform and not any(_fits(one.platform, platform) for one in image.platforms):
            known = ", ".join(sorted(one.platform for one in image.platforms))
            raise CommandError(
                f"{reference} has no image for {platform}",
                Exit.NOT_FOUND,
                f"it has {known}; without --platform each host gets its own",
            )
        return image

    async def _manifest(self, reference: Reference, target: str) -> Manifest:
        async with self._slots:
            body, info = await self._client.manifest(reference, target)
        digest = Digest(target) if ":" in target else digest_of(body)
        return Manifest(digest, info.media_type, body)


def _fits(offered: str, wanted: str) -> bool:
    """An image without an index is for any platform; a variant may be left open on either side."""
    return not offered or f"{offered}/".startswith(f"{wanted}/") or wanted.startswith(f"{offered}/")


def timeouts() -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
