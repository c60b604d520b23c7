"""Pulls one image from a registry endpoint into files, checked and resumed where it was cut."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BufferedRandom
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import aiohttp

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.pulling.refusals import REFUSAL_BYTES_MAX, refused
from p2pdist.cli.pulling.workspace import naming
from p2pdist.model.geometry import MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, digest_algorithm, digest_of
from p2pdist.model.layer_index import INDEX_BYTES_MAX
from p2pdist.oci import manifest
from p2pdist.oci.image_config import CONFIG_BYTES_MAX, platform_of_config
from p2pdist.oci.manifest import (
    MANIFEST_ACCEPT,
    Descriptor,
    ManifestInfo,
    best_platform,
    choose_platform,
    parse_image,
)
from p2pdist.oci.reference import DEFAULT_TAG, Reference
from p2pdist.process.opening import opened
from p2pdist.process.terminal import printable
from p2pdist.registry.ports import DEMAND_AGAIN, DEMAND_HEADER

BLOBS_AT_ONCE: Final = 3  # as dockerd does
TRIES_MAX: Final = 4
READ_BYTES: Final = 1 << 20
# The mirror promises a first byte within 5 s and no longer gap; four times that is a dead one.
SILENCE_S: Final = 20.0


class Progress(Protocol):
    """Hears how far a pull is; calls come on the event loop."""

    def started(self, image: str, blobs: list[Descriptor]) -> None: ...

    def advanced(self, digest: Digest, nbytes: int) -> None: ...

    def retried(self, digest: Digest, why: str) -> None: ...

    def finished(self, digest: Digest) -> None: ...

    def ended(self) -> None:
        """Nothing more comes, however it went."""


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str = ""


@dataclass(frozen=True, slots=True)
class PulledImage:
    """A manifest and where its blobs lie, each under the hex of its digest.

    `platform`: what the image says itself that it runs on, if it does.
    """

    reference: Reference
    digest: Digest
    body: bytes
    info: ManifestInfo
    directory: Path
    platform: manifest.Platform | None = None

    @property
    def blobs(self) -> list[Descriptor]:
        """Config first, then the layers; a digest that stands twice is listed once."""
        parts = ([self.info.config] if self.info.config else []) + list(self.info.layers)
        return list({part.digest: part for part in parts}.values())

    def path(self, digest: Digest) -> Path:
        return self.directory / digest.partition(":")[2]


class _Download:
    """One blob on its way into a file. Methods block."""

    def __init__(self, blob: Descriptor, file: BufferedRandom) -> None:
        self.blob = blob
        self.have = 0
        self._file = file

    def append(self, data: bytes) -> None:
        """Raise CommandError beyond the size that the manifest declares."""
        if self.have + len(data) > self.blob.size:
            raise CommandError(f"{self.blob.digest} is too long", Exit.INTEGRITY)
        self._file.write(data)
        self.have += len(data)

    def start_over(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self.have = 0

    def actual_digest(self) -> str:
        self._file.flush()
        self._file.seek(0)
        algorithm = digest_algorithm(self.blob.digest)
        return f"{algorithm}:{hashlib.file_digest(self._file, algorithm).hexdigest()}"


class PullClient:
    """Asks the `/v2/` of `endpoint`, naming the registry by `ns`."""

    def __init__(self, session: aiohttp.ClientSession, endpoint: str, progress: Progress) -> None:
        self._session = session
        self._endpoint = endpoint.rstrip("/")
        self._progress = progress
        self._slots = asyncio.Semaphore(BLOBS_AT_ONCE)

    async def pull(
        self, reference: Reference, platform: Platform, directory: Path, *, insist: bool = True
    ) -> PulledImage:
        """Fetch manifest, config and layers. Raises CommandError.

        `insist`: refuse an image without an index that was built for another platform.
        """
        image = await self.resolve(reference, platform, directory)
        info = image.info
        self._progress.started(title(reference), image.blobs)
        try:
            built_for = await self._config(image)
            asked = manifest.Platform(platform.os, platform.architecture, platform.variant)
            if insist and built_for and best_platform([built_for], asked) is None:
                raise _not_for(platform, reference, [_platform_text(built_for)])
            async with asyncio.TaskGroup() as blobs:
                for blob in image.blobs:
                    if blob is not info.config:
                        blobs.create_task(self.blob(reference, blob, image.path(blob.digest)))
        finally:
            self._progress.ended()
        return replace(image, platform=built_for)

    async def resolve(
        self, reference: Reference, platform: Platform, directory: Path
    ) -> PulledImage:
        """Return the manifest for `platform`, before any blob is in `directory`. Raises
        CommandError."""
        body, info = await self.manifest(reference, reference.target)
        if info.kind == "index":
            child = choose_platform(info, platform.os, platform.architecture, platform.variant)
            if child is None:
                known = sorted({_platform_text(m.platform) for m in info.manifests})
                raise _not_for(platform, reference, known)
            body, info = await self.manifest(reference, child.digest)
        return PulledImage(reference, digest_of(body), body, info, directory)

    async def _config(self, image: PulledImage) -> manifest.Platform | None:
        """Fetch the config, before anything large; return the platform that it names."""
        config = image.info.config
        if config is None:
            return None
        path = image.path(config.digest)
        await self.blob(image.reference, config, path)
        if config.size > CONFIG_BYTES_MAX:
            return None
        return platform_of_config(await asyncio.to_thread(path.read_bytes))

    # --- manifests ------------------------------------------------------------------------------

    async def manifest(self, reference: Reference, target: str) -> tuple[bytes, ManifestInfo]:
        """Return what a tag or digest names, checked where it is a digest. Raises CommandError."""
        url = self._url(reference, "manifests", target)
        try:
            async with self._session.get(
                url, headers={"Accept": ", ".join(MANIFEST_ACCEPT)}
            ) as answer:
                if answer.status != 200:
                    mark, kind = ("@", "manifest") if ":" in target else (":", "tag")
                    what = f"{reference.name}{mark}{target}"
                    raise await _refusal(answer, reference, what, kind)
                body = await answer.content.read(MANIFEST_SIZE_MAX_BYTES + 1)
                while not answer.content.at_eof() and len(body) <= MANIFEST_SIZE_MAX_BYTES:
                    body += await answer.content.read(MANIFEST_SIZE_MAX_BYTES)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from None
        if ":" in target and digest_of(body, target.partition(":")[0]) != target:
            raise CommandError(f"{target} came with other bytes", Exit.INTEGRITY)
        try:
            return body, parse_image(body)
        except ValueError as error:
            raise CommandError(f"{target} is no manifest: {error}", Exit.INTEGRITY) from None

    # --- parts of layers ------------------------------------------------------------------------

    async def layer_index(self, reference: Reference, layer: Digest) -> bytes | None:
        """What lies where in a layer; None where the mirror has no index of it."""
        url = self._url(reference, "_p2pdist/layer-index", layer)
        try:
            async with self._session.get(url) as answer:
                if answer.status != 200:
                    return None
                body = bytearray()
                async for data in answer.content.iter_chunked(READ_BYTES):
                    body += data
                    if len(body) > INDEX_BYTES_MAX:
                        return None
                return bytes(body)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise self._unreachable(error) from None

    async def blob_range(
        self, reference: Reference, digest: Digest, start: int, stop: int, *, again: bool
    ) -> bytes:
        """Return these bytes of a blob, as they came: only who knows what they are to be can check
        them. The mirror is asked to fetch no others; `again`: to hash what it has of them, as they
        were wrong. Raises CommandError."""
        demand = DEMAND_AGAIN if again else "1"
        headers = {"Range": f"bytes={start}-{stop - 1}", DEMAND_HEADER: demand}
        url = self._url(reference, "blobs", digest)
        for attempt in range(1, TRIES_MAX + 1):
            try:
                async with self._session.get(url, headers=headers) as answer:
                    if answer.status != 206:
                        raise await _refusal(answer, reference, digest, "blob")
                    return await answer.content.readexactly(stop - start)
            except (aiohttp.ClientError, TimeoutError, asyncio.IncompleteReadError) as error:
                if attempt == TRIES_MAX:
                    raise self._unreachable(error) from None
        raise AssertionError("unreachable")

    # --- blobs ----------------------------------------------------------------------------------

    async def blob(self, reference: Reference, blob: Descriptor, path: Path) -> None:
        """Fetch all of a blob into a new file. Raises CommandError, OSError."""
        async with self._slots:
            # No error of the network gets this far as one of the system.
            with naming(path.parent.parent):
                async with opened(path, "xb+") as file:
                    await self._checked(reference, _Download(blob, file))
            self._progress.finished(blob.digest)

    async def _checked(self, reference: Reference, download: _Download) -> None:
        await self._fetch_all(reference, download)
        if await asyncio.to_thread(download.actual_digest) != download.blob.digest:
            raise CommandError(
                f"{download.blob.digest} came with other bytes",
                Exit.INTEGRITY,
                "nothing of it was kept; ask the registry's owner if it happens again",
            )

    async def _fetch_all(self, reference: Reference, download: _Download) -> None:
        """Go on from where it was cut, a few times."""
        for attempt in range(1, TRIES_MAX + 1):
            try:
                return await self._fetch(reference, download)
            except (aiohttp.ClientError, TimeoutError) as error:
                if attempt == TRIES_MAX:
                    raise self._unreachable(error) from None
                self._progress.retried(download.blob.digest, str(error) or type(error).__name__)
        return None

    async def _fetch(self, reference: Reference, download: _Download) -> None:
        """Append what is missing. Raises ClientError where the body is cut."""
        blob = download.blob
        headers = {"Range": f"bytes={download.have}-"} if download.have else {}
        url = self._url(reference, "blobs", blob.digest)
        async with self._session.get(url, headers=headers) as answer:
            if answer.status not in (200, 206):
                raise await _refusal(answer, reference, blob.digest, "blob")
            if answer.status == 200 and download.have:
                self._progress.advanced(blob.digest, -download.have)
                download.start_over()
            async for data in answer.content.iter_chunked(READ_BYTES):
                await asyncio.to_thread(download.append, data)
                self._progress.advanced(blob.digest, len(data))
        if download.have != blob.size:
            raise aiohttp.ClientPayloadError(f"ended at {download.have} of {blob.size} bytes")

    def _url(self, reference: Reference, kind: str, target: str) -> str:
        name = reference.name
        return f"{self._endpoint}/v2/{name.repository}/{kind}/{target}?ns={quote(name.upstream)}"

    def _unreachable(self, error: Exception) -> CommandError:
        why = str(error) or type(error).__name__
        return CommandError(
            f"{self._endpoint} does not deliver: {why}",
            Exit.UPSTREAM,
            "start a peer with `p2pdist peer` or `p2pdist all-in-one`, or name one with --endpoint",
        )


async def _refusal(
    answer: aiohttp.ClientResponse, reference: Reference, what: str, kind: str
) -> CommandError:
    body = b""
    while len(body) < REFUSAL_BYTES_MAX and not answer.content.at_eof():
        body += await answer.content.read(REFUSAL_BYTES_MAX - len(body))
    registry = reference.name.upstream
    return refused(answer.status, body, registry=registry, what=what, kind=kind)


def title(reference: Reference) -> str:
    """What is pulled, with the tag that is meant where none is given."""
    return (
        str(reference) if reference.tag or reference.digest else f"{reference.name}:{DEFAULT_TAG}"
    )


def _not_for(platform: Platform, reference: Reference, known: Sequence[str]) -> CommandError:
    wanted = "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
    return CommandError(
        f"{title(reference)} has no image for {wanted}",
        Exit.NOT_FOUND,
        f"it has {', '.join(known)}; choose one with --platform",
    )


def _platform_text(platform: manifest.Platform | None) -> str:
    if platform is None:
        return "unknown"
    parts = (platform.os, platform.architecture, platform.variant)
    return printable("/".join(filter(None, parts)))
