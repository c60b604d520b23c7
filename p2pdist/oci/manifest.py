"""Manifests: which kind a body is, and what it points to.

Bodies are never rewritten: a manifest is passed on as the bytes that its digest stands for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Literal

import msgspec

from p2pdist.model.geometry import BLOB_SIZE_MAX_BYTES, MANIFEST_SIZE_MAX_BYTES
from p2pdist.model.ids import Digest, parse_digest

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"

Kind = Literal["index", "image", "artifact"]

_KINDS: Final[dict[str, Kind]] = {
    DOCKER_MANIFEST: "image",
    DOCKER_LIST: "index",
    OCI_MANIFEST: "image",
    OCI_INDEX: "index",
    OCI_ARTIFACT: "artifact",
}
MANIFEST_MEDIA_TYPES: Final = frozenset(_KINDS)

# Always asked for in full: without it docker-registry 2.8.2 rewrites images to schema 1 and swaps
# an index for its amd64 child, under other digests.
MANIFEST_ACCEPT: Final = (OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT)

# The largest public indexes have below 100 children; Docker stops at 127 layers.
INDEX_CHILDREN_MAX: Final = 1000
LAYERS_MAX: Final = 4096

_Text = Annotated[str, msgspec.Meta(max_length=255)]

# What a platform without a variant means, and older variants that a newer one runs too.
_DEFAULT_VARIANTS: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_ARCHITECTURE_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


class _PlatformJson(msgspec.Struct, frozen=True):
    os: _Text = ""
    architecture: _Text = ""
    variant: _Text = ""


class _DescriptorJson(msgspec.Struct, frozen=True, rename="camel"):
    digest: _Text
    size: Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]
    media_type: _Text = ""
    platform: _PlatformJson | None = None
    urls: list[str] | None = None


_Layers = Annotated[list[_DescriptorJson], msgspec.Meta(max_length=LAYERS_MAX)]
_Children = Annotated[list[_DescriptorJson], msgspec.Meta(max_length=INDEX_CHILDREN_MAX)]


class _ManifestJson(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int = 2
    media_type: str = ""
    config: _DescriptorJson | None = None
    layers: _Layers | None = None
    blobs: _Layers | None = None
    manifests: _Children | None = None


_DECODER: Final = msgspec.json.Decoder(_ManifestJson)


@dataclass(frozen=True, slots=True)
class Platform:
    os: str
    architecture: str
    variant: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    digest: Digest
    size: int
    """Bytes, as declared."""
    media_type: str
    platform: Platform | None = None
    foreign: bool = False
    """The blob has URLs of its own and need not be in the registry."""


@dataclass(frozen=True, slots=True)
class ManifestInfo:
    kind: Kind
    media_type: str
    config: Descriptor | None = None
    layers: tuple[Descriptor, ...] = ()
    """Layers of an image in order, or blobs of an artifact."""
    manifests: tuple[Descriptor, ...] = ()
    """Children of an index in order."""


def parse_manifest(body: bytes, media_type: str | None = None) -> ManifestInfo:
    """Decode `body`; `media_type` is the Content-Type that came with it.

    Raise ValueError for anything that is no manifest: schema 1, a body that is index and image at
    once (CVE-2021-41190), or a known Content-Type that the body contradicts.
    """
    document = _decode(body)
    found = _media_type(document)
    claimed = _bare(media_type or "")
    if claimed in _KINDS and claimed != found:
        if document.media_type or _KINDS[claimed] != _KINDS[found]:
            raise ValueError(f"Content-Type {claimed} for a body that is {found}")
        found = claimed
    return ManifestInfo(
        kind=_KINDS[found],
        media_type=found,
        config=_descriptor(document.config) if document.config else None,
        layers=tuple(map(_descriptor, document.layers or document.blobs or ())),
        manifests=tuple(map(_descriptor, document.manifests or ())),
    )


def media_type_of(body: bytes) -> str:
    """Return the type that `body` names, else the one of its structure; ValueError for neither."""
    return _media_type(_decode(body))


def choose_platform(
    info: ManifestInfo, os: str, architecture: str, variant: str = ""
) -> Descriptor | None:
    """Return the child of an index that a host of this platform runs, the newest variant first."""
    assert info.kind == "index"
    names = [child.platform for child in info.manifests]
    at = best_platform(names, Platform(os.lower(), architecture.lower(), variant))
    return None if at is None else info.manifests[at]


def best_platform(names: Sequence[Platform | None], host: Platform) -> int | None:
    """Return which of `names` a host runs, the newest variant first; None: none of them."""
    architecture = _ARCHITECTURE_ALIASES.get(host.architecture, host.architecture)
    own = _variant_rank(architecture, host.variant)
    best: tuple[int, int] | None = None
    for at, name in enumerate(names):
        if name is None or (name.os, name.architecture) != (host.os, architecture):
            continue
        rank = _variant_rank(architecture, name.variant)
        if rank <= own and (best is None or rank > best[0]):
            best = rank, at
    return best[1] if best else None


def _decode(body: bytes) -> _ManifestJson:
    if len(body) > MANIFEST_SIZE_MAX_BYTES:
        raise ValueError(f"manifest of {len(body)} bytes")
    try:
        document = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    except RecursionError:
        raise ValueError("not a manifest: nested too deep") from None
    if document.schema_version != 2:
        raise ValueError(f"manifest schema {document.schema_version} is not supported")
    if document.manifests is not None and (document.layers or document.config or document.blobs):
        raise ValueError("manifest that is index and image at once")
    return document


def _media_type(document: _ManifestJson) -> str:
    structure = _structure(document)
    claimed = document.media_type
    if claimed not in _KINDS:
        if structure is None:
            raise ValueError("not a manifest: neither layers nor manifests")
        return structure
    # An index or artifact may point to nothing (Go writes its empty lists as null).
    hollow = structure is None and _KINDS[claimed] != "image"
    if not hollow and (structure is None or _KINDS[structure] != _KINDS[claimed]):
        raise ValueError(f"not a manifest: {claimed} without its parts")
    return claimed


def _structure(document: _ManifestJson) -> str | None:
    """The OCI media type with this structure; Docker's own types always name themselves."""
    if document.manifests is not None:
        return OCI_INDEX
    if document.config is not None:
        return OCI_MANIFEST
    return OCI_ARTIFACT if document.blobs is not None else None


def _descriptor(raw: _DescriptorJson) -> Descriptor:
    platform = _platform(raw.platform) if raw.platform else None
    digest = parse_digest(raw.digest)
    return Descriptor(digest, raw.size, raw.media_type, platform, foreign=bool(raw.urls))


def _platform(raw: _PlatformJson) -> Platform:
    return Platform(raw.os.lower(), raw.architecture.lower(), raw.variant.lower())


def _bare(media_type: str) -> str:
    return media_type.partition(";")[0].strip().lower()


def _variant_rank(architecture: str, variant: str) -> int:
    """`v7` is 7; a variant of another form, such as an Arm profile, ranks below all of them."""
    text = variant.lower() or _DEFAULT_VARIANTS.get(architecture, "")
    digits = text.removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) <= 3 else 0
