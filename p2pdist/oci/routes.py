"""What a request under `/v2/` asks for, and of which upstream."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, unquote_to_bytes

from p2pdist.errors import ErrorReason, RegistryError
from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.names import ImageName
from p2pdist.oci.paging import check_query, without_namespace
from p2pdist.oci.reference import canonical_upstream, image_name, looks_like_host, valid_tag
from p2pdist.oci.refusals import sentence

# Names have at most 255 characters, digests 135; three times that for percent-encoding. Queries of
# lists are a registry's own, and have up to 4 KiB.
TARGET_LENGTH_MAX: Final = 6 * 1024
_QUERY_FIELDS_MAX: Final = 16
_PAGE_DIGITS_MAX: Final = 9
_MEDIA_TYPE: Final = re.compile(
    r"[a-zA-Z0-9][\w!#$&^.+-]{0,126}/[a-zA-Z0-9][\w!#$&^.+-]{0,126}", re.A
)
_UNDERSCORE_PORT: Final = re.compile(r"([a-z0-9.-]+)_(\d{1,5})")
_ABSOLUTE_FORM: Final = re.compile(r"https?://[^/?#]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Ping:
    """`GET /v2/`"""


@dataclass(frozen=True, slots=True)
class ManifestRoute:
    """`path_name` is the name as it stands in the path: `resolve_name` validates it."""

    path_name: str
    reference: str
    """A valid tag or digest."""

    @property
    def by_digest(self) -> bool:
        return ":" in self.reference


@dataclass(frozen=True, slots=True)
class BlobRoute:
    path_name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class TagsRoute:
    path_name: str
    count: int | None
    """How many tags are wanted."""
    query: str
    """For the registry, as it came: how to go on is between it and its client."""


@dataclass(frozen=True, slots=True)
class ReferrersRoute:
    path_name: str
    digest: Digest
    artifact_type: str | None


@dataclass(frozen=True, slots=True)
class LayerIndexRoute:
    """`/v2/<name>/_p2pdist/layer-index/<digest>`, an extension as the distribution specification
    provides for them: what lies where in a layer."""

    path_name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Push, delete and the like: 405."""


NamedRoute = ManifestRoute | BlobRoute | TagsRoute | ReferrersRoute | LayerIndexRoute
Route = Ping | NamedRoute | Unsupported


class UnlistedRegistry(RegistryError):
    """404, so that the client asks the registry itself and shows that one's own error."""

    def __init__(self, registry: str) -> None:
        reason, text = ErrorReason.NOT_LISTED, f"{registry} is not a registry served here"
        super().__init__(404, "NAME_UNKNOWN", sentence(reason, registry, text), reason=reason)
        self.registry = registry


def split_target(target: str) -> tuple[str, str, dict[str, str]]:
    """Split a request target into its raw path and query, and decode the latter.

    Raises RegistryError. Two values for one key could be understood in two ways: 400.
    """
    if len(target) > TARGET_LENGTH_MAX:
        raise RegistryError(414, "NAME_INVALID", f"URI longer than {TARGET_LENGTH_MAX} characters")
    raw_path, _, raw_query = _ABSOLUTE_FORM.sub("", target, count=1).partition("?")
    try:
        pairs = parse_qsl(
            raw_query, keep_blank_values=True, errors="strict", max_num_fields=_QUERY_FIELDS_MAX
        )
    except ValueError:
        raise RegistryError(400, "NAME_INVALID", "malformed query") from None
    query = dict(pairs)
    if len(query) != len(pairs):
        raise RegistryError(400, "NAME_INVALID", "query with a repeated key")
    return raw_path, raw_query, query


def parse_route(method: str, raw_path: str, raw_query: str, query: Mapping[str, str]) -> Route:
    """Tell what is asked for; raise RegistryError for what no registry could answer.

    Routes are matched from the right: a repository may be called `blobs` or `manifests`.
    """
    if method not in ("GET", "HEAD"):
        return Unsupported()
    match _segments(raw_path):
        case ["", "v2"] | ["", "v2", ""]:
            return Ping()
        case ["", "v2", *_, "blobs", "uploads", _] | ["", "v2", *_, "blobs", "uploads"]:
            return Unsupported()
        case ["", "v2", *name, "manifests", reference] if name:
            return ManifestRoute("/".join(name), _reference(reference))
        case ["", "v2", *name, "blobs", digest] if name:
            return BlobRoute("/".join(name), _digest(digest))
        case ["", "v2", *name, "tags", "list"] if name:
            return TagsRoute("/".join(name), _page_size(query.get("n")), _list_query(raw_query))
        case ["", "v2", *name, "referrers", digest] if name:
            artifact_type = _artifact_type(query.get("artifactType"))
            return ReferrersRoute("/".join(name), _digest(digest), artifact_type)
        case ["", "v2", *name, "_p2pdist", "layer-index", digest] if name:
            return LayerIndexRoute("/".join(name), _digest(digest))
        case _:
            raise RegistryError(404, "UNSUPPORTED", "no such endpoint")


def resolve_name(
    path_name: str, ns: str | None, *, upstreams: Collection[str], default: str
) -> tuple[ImageName, bool]:
    """Return the image that a path means and whether its client is bound to our answers.

    The upstream comes from `ns` (containerd), a host that starts the path (containers/image), both
    where they agree, or is `default` (dockerd). `upstreams` and `default` are canonical hosts. A
    path may write a host's port as `host_5000`: containers/image refuses a colon inside of a path
    (Podman 4.3: "invalid reference format"). The client is sticky where the path alone names the
    upstream: containers/image stays with the endpoint that gave it the manifest. Raise
    RegistryError: 400 for a malformed or contradictory name, UnlistedRegistry for an upstream that
    is not on the list.
    """
    hint = _upstream(ns) if ns is not None else None
    prefix, repository = _split_prefix(path_name)
    if hint is not None and prefix is not None and hint != prefix:
        raise RegistryError(400, "NAME_INVALID", "ns and path name different registries")
    upstream = hint or prefix or default
    try:
        name = image_name(upstream, repository)
    except ValueError as error:
        raise RegistryError(400, "NAME_INVALID", str(error)) from None
    if upstream not in upstreams:
        raise UnlistedRegistry(upstream)
    return name, hint is None and prefix is not None


def _segments(raw_path: str) -> list[str]:
    """Cut at slashes, then decode once; a slash that was encoded is no separator but an attack."""
    segments = [_decode(raw) for raw in raw_path.split("/")]
    if any("/" in segment for segment in segments):
        raise RegistryError(400, "NAME_INVALID", "path with an encoded slash")
    return segments


def _decode(raw: str) -> str:
    try:
        return unquote_to_bytes(raw.encode("ascii")).decode("ascii")
    except UnicodeError:
        raise RegistryError(400, "NAME_INVALID", "path with characters beyond ASCII") from None


def _reference(text: str) -> str:
    if ":" in text:
        return _digest(text)
    if not valid_tag(text):
        raise RegistryError(404, "MANIFEST_UNKNOWN", "not a valid tag")
    return text


def _digest(text: str) -> Digest:
    try:
        return parse_digest(text)
    except ValueError as error:
        raise RegistryError(400, "DIGEST_INVALID", str(error)) from None


def _page_size(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _PAGE_DIGITS_MAX):
        raise RegistryError(400, "UNSUPPORTED", "n is not a number of tags")
    return int(text)


def _list_query(raw_query: str) -> str:
    try:
        return check_query(without_namespace(raw_query))
    except ValueError as error:
        raise RegistryError(400, "UNSUPPORTED", str(error)) from None


def _artifact_type(text: str | None) -> str | None:
    if text is not None and _MEDIA_TYPE.fullmatch(text) is None:
        raise RegistryError(400, "UNSUPPORTED", "artifactType is not a media type")
    return text


def _upstream(host: str) -> str:
    try:
        return canonical_upstream(host)
    except ValueError as error:
        raise RegistryError(400, "NAME_INVALID", str(error)) from None


def _split_prefix(path_name: str) -> tuple[str | None, str]:
    host, slash, repository = path_name.partition("/")
    if slash and (written := _UNDERSCORE_PORT.fullmatch(host)) and looks_like_host(written[1]):
        return _upstream(f"{written[1]}:{written[2]}"), repository
    if slash and looks_like_host(host):
        return _upstream(host), repository
    return None, path_name
