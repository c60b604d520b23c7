"""Resolves an image for a job: what its name stands for now, for every platform that it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from p2pdist.model.ids import Digest
from p2pdist.model.jobs import Blob, JobImage, PlatformImage
from p2pdist.oci.manifest import Descriptor, ManifestInfo, parse_image
from p2pdist.oci.reference import Reference
from p2pdist.process.off_loop import parsed
from p2pdist.registry.ports import Manifest

GetManifest = Callable[[Reference, str], Awaitable[Manifest]]
"""Returns the manifest of a tag or digest; raises what its caller understands."""


async def resolve_image(reference: Reference, get: GetManifest) -> JobImage:
    """Return the image with all its platforms; raise ValueError for what is no image.

    Attestations (platform `unknown/unknown`) and foreign layers are left out: no host pulls them.
    """
    top = await get(reference, reference.target)
    info = await _parsed(top)
    platforms: list[PlatformImage] = []
    if info.kind == "index":
        for child in info.manifests:
            platform = _platform_text(child)
            if platform == "unknown/unknown":
                continue
            manifest = await get(reference, child.digest)
            own = await _parsed(manifest)
            if own.kind == "image":
                blobs = _blobs(own)
                platforms.append(PlatformImage(platform, [top.digest, child.digest], blobs))
    else:
        platforms.append(PlatformImage("", [top.digest], _blobs(info)))
    if not platforms:
        raise ValueError(f"{reference} names no image that a host could run")
    tag = "" if reference.digest is not None else reference.target
    name = reference.name
    return JobImage(name.upstream, name.repository, tag, top.digest, platforms)


async def _parsed(manifest: Manifest) -> ManifestInfo:
    return await parsed(lambda body: parse_image(body, manifest.media_type), manifest.body)


def _blobs(info: ManifestInfo) -> list[Blob]:
    parts: dict[Digest, int] = {}
    for part in (*((info.config,) if info.config else ()), *info.layers):
        if not part.foreign:
            parts[part.digest] = part.size
    return [Blob(digest, size) for digest, size in parts.items()]


def _platform_text(child: Descriptor) -> str:
    platform = child.platform
    if platform is None:
        return ""
    return "/".join(filter(None, (platform.os, platform.architecture, platform.variant)))
