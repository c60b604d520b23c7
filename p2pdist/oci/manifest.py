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
from p2pdist.oci.media_types import SCHEMA_1, valid_media_type

DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
OCI_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX: Final = "application/vnd.oci.image.index.v1+json"
OCI_ARTIFACT: Final = "application/vnd.oci.artifact.manifest.v1+json"

Kind = Literal["index", "image", "artifact", "opaque"]
"""`opaque`: of a type, and a structure, that we do not know."""

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

# A list with more commas than this is not looked into: hostile ones would become a million objects.
# The shortest descriptor has 45 bytes for each of its commas, so 4 MiB of them stay far below.
LIST_COMMAS_MAX: Final = 1 << 18

# What names no type of manifest but "some bytes": servers put it where they know nothing better.
_GENERIC: Final = frozenset({"application/json", "application/octet-stream"})

_Text = Annotated[str, msgspec.Meta(max_length=255)]

# What a platform without a variant means, and older variants that a newer one runs too.
_DEFAULT_VARIANTS: Final = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
_ARCHITECTURE_ALIASES: Final = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}


_Raw = msgspec.Raw
_ABSENT: Final = msgspec.Raw()


# What nobody has to read, or what a manifest is passed on without, is not typed (`Raw`): a registry
# may put there what it likes.
class _PlatformJson(msgspec.Struct, frozen=True):
    os: _Raw = _ABSENT
    architecture: _Raw = _ABSENT
    variant: _Raw = _ABSENT


class _DescriptorJson(msgspec.Struct, frozen=True, rename="camel"):
    digest: _Text
    size: Annotated[int, msgspec.Meta(ge=0, le=BLOB_SIZE_MAX_BYTES)]
    media_type: _Raw = _ABSENT
    platform: _Raw = _ABSENT
    urls: _Raw = _ABSENT


class _ManifestJson(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: _Raw = _ABSENT
    media_type: _Raw = _ABSENT
    config: _Raw = _ABSENT
    layers: _Raw = _ABSENT
    blobs: _Raw = _ABSENT
    manifests: _Raw = _ABSENT


_DECODER: Final = msgspec.json.Decoder(_ManifestJson)
_LIST: Final = msgspec.json.Decoder(list[_Raw])
_DESCRIPTOR: Final = msgspec.json.Decoder(_DescriptorJson)
_PLATFORM: Final = msgspec.json.Decoder(_PlatformJson)
_TEXT: Final = msgspec.json.Decoder(_Text)


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
    skipped: int = 0
    """Descriptors without a digest or a size that could be used."""


def parse_manifest(body: bytes, told: str = "") -> ManifestInfo:
    """Decode `body`; `told` is the Content-Type that came with it, from one who is believed.

    Raise ValueError for what neither its type nor its form shows to be a manifest: schema 1, a
    body that is index and image at once (CVE-2021-41190), or one that a known type contradicts.
    """
    document = _decode(body)
    media_type = _media_type(document, told)
    parts = _Parts()
    config = parts.one(document.config)
    layers = (*parts.all(document.layers), *parts.all(document.blobs))
    manifests = parts.all(document.manifests)
    kind = _KINDS.get(media_type) or _KINDS.get(_form(document), "opaque")
    return ManifestInfo(kind, media_type, config, layers, manifests, parts.skipped)


def parse_image(body: bytes, told: str = "") -> ManifestInfo:
    """`parse_manifest` for one who needs all that it names: ValueError also where that is not
    known."""
    info = parse_manifest(body, told)
    if info.kind == "opaque":
        raise ValueError(f"{info.media_type} is no image that is known here")
    if info.skipped:
        raise ValueError(f"manifest with {info.skipped} unusable descriptors")
    return info


def media_type_of(body: bytes, told: str = "") -> str:
    """Return the type that `body` names, else `told`, else the one of its structure.

    So nobody who passes a manifest on can give it another type than it names. Raises ValueError as
    `parse_manifest` does.
    """
    return _media_type(_decode(body), told)


def shows_manifest(body: bytes) -> bool:
    """Whether `body` has one of the known forms: else only where it came from tells what it is.

    A blob may name a type of its own, as signature bundles do, and is no manifest for that.
    """
    try:
        document = _decode(body)
        return media_type_of(body) in _KINDS or bool(_structure(document))
    except ValueError:
        return False


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
        return _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"not a manifest: {error}") from None
    except RecursionError:
        raise ValueError("not a manifest: nested too deep") from None


def _media_type(document: _ManifestJson, told: str) -> str:
    """The body's own word counts more than `told`: it cannot be changed under its digest."""
    told, form = _named(told), _form(document)
    found = _named(_text(document.media_type)) or told or _structure(document)
    if not found:
        raise ValueError("not a manifest: neither layers nor manifests")
    if found in SCHEMA_1 or (found in _KINDS and bytes(document.schema_version) == b"1"):
        raise ValueError("manifest schema 1 is not supported")
    if found not in _KINDS:
        return found
    if form == OCI_INDEX and _has_image_parts(document):
        raise ValueError("manifest that is index and image at once")
    # An index or artifact may point to nothing (Go writes its empty lists as null).
    hollow = not form and _KINDS[found] != "image"
    if not hollow and (not form or _KINDS[form] != _KINDS[found]):
        raise ValueError(f"not a manifest: {found} without its parts")
    if told in _KINDS and _KINDS[told] != _KINDS[found]:
        raise ValueError(f"Content-Type {told} for a body that is {found}")
    return found


def _named(media_type: str) -> str:
    """A type that could be a manifest's, without its parameters; else nothing."""
    bare = media_type.partition(";")[0].strip().lower()
    named = valid_media_type(bare) and bare not in _GENERIC and not bare.startswith("text/")
    return bare if named else ""


def _form(document: _ManifestJson) -> str:
    """The OCI media type with this structure; Docker's own types always name themselves."""
    if _is_list(document.manifests):
        return OCI_INDEX
    if _is_object(document.config):
        return OCI_MANIFEST
    return OCI_ARTIFACT if _is_list(document.blobs) else ""


def _structure(document: _ManifestJson) -> str:
    """The type that the form alone shows. The settings of an image have a `config` as well, which
    is no descriptor."""
    form = _form(document)
    return "" if form == OCI_MANIFEST and _descriptor(document.config) is None else form


def _has_image_parts(document: _ManifestJson) -> bool:
    lists = (document.layers, document.blobs)
    return _is_object(document.config) or any(_is_list(raw) and not _is_empty(raw) for raw in lists)


class _Parts:
    """Reads descriptors, and counts those that are of no use."""

    def __init__(self) -> None:
        self.skipped = 0

    def one(self, raw: _Raw) -> Descriptor | None:
        return self._read(raw) if _is_object(raw) else None

    def all(self, raw: _Raw) -> tuple[Descriptor, ...]:
        if not _is_list(raw):
            return ()
        if bytes(raw).count(b",") > LIST_COMMAS_MAX:
            self.skipped += 1
            return ()
        return tuple(found for item in _LIST.decode(raw) if (found := self._read(item)) is not None)

    def _read(self, raw: _Raw) -> Descriptor | None:
        found = _descriptor(raw)
        self.skipped += found is None
        return found


def _descriptor(raw: _Raw) -> Descriptor | None:
    try:
        read = _DESCRIPTOR.decode(raw)
        digest = parse_digest(read.digest)
    except (ValueError, RecursionError):
        return None
    foreign = _is_list(read.urls) and not _is_empty(read.urls)
    return Descriptor(digest, read.size, _text(read.media_type), _platform(read.platform), foreign)


def _platform(raw: _Raw) -> Platform | None:
    try:
        read = _PLATFORM.decode(raw) if raw else None
    except (ValueError, RecursionError):
        return None
    if read is None:
        return None
    return Platform(*(_text(part).lower() for part in (read.os, read.architecture, read.variant)))


def _is_list(raw: _Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"["


def _is_object(raw: _Raw) -> bool:
    return bytes(memoryview(raw)[:1]) == b"{"


def _is_empty(raw: _Raw) -> bool:
    return bytes(raw)[1:-1].isspace() or len(raw) == 2


def _text(raw: _Raw) -> str:
    """The text that stands there; nothing for null or anything else."""
    try:
        return _TEXT.decode(raw) if raw else ""
    except ValueError:
        return ""


def _variant_rank(architecture: str, variant: str) -> int:
    """`v7` is 7; a variant of another form, such as an Arm profile, ranks below all of them."""
    text = variant.lower() or _DEFAULT_VARIANTS.get(architecture, "")
    digits = text.removeprefix("v")
    return int(digits) if digits.isdecimal() and len(digits) <= 3 else 0
