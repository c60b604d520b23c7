"""Push notifications of registries, as the few words in them that matter.

Whatever a body says is a hint: which tag to look up anew. Bodies come from whoever has the secret,
so every field is taken for hostile. Formats: registry contract, section 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import msgspec

from p2pdist.oci.manifest import MANIFEST_MEDIA_TYPES
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import DOCKER_HUB, canonical_upstream, image_name, valid_tag

Kind = Literal["distribution", "acr", "harbor", "dockerhub", "quay", "unknown"]
KINDS: Final[tuple[Kind, ...]] = (
    "distribution",
    "acr",
    "harbor",
    "dockerhub",
    "quay",
    "unknown",
)
# distribution sends one event a request, Quay all tags of one push.
PUSHES_MAX: Final = 1000


@dataclass(frozen=True, slots=True)
class Push:
    """A tag that may have moved."""

    host: str
    """What the sender calls the registry, canonical: not necessarily the name of our upstream."""
    repository: str
    """Valid, Docker Hub's with `library/`."""
    tag: str


@dataclass(frozen=True, slots=True)
class Notification:
    kind: Kind
    pushes: tuple[Push, ...]
    """In the order of the body, each once; pulls, deletes and what is no image are left out."""


def parse_notification(body: bytes) -> Notification:
    """Read a body of any registry that we know; raise ValueError for what is no JSON object.

    An object of a form that we do not know is `unknown`, without pushes: webhooks send test
    messages, and a registry repeats what is refused.
    """
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("no JSON") from None
    if not isinstance(document, dict):
        raise ValueError("no JSON object")
    kind = _kind_of(document)
    found: dict[Push, None] = {}
    for host, repository, tag in _READERS[kind](document):
        push = _push(host, repository, tag)
        if push is not None:
            found[push] = None
        if len(found) == PUSHES_MAX:
            break
    return Notification(kind, tuple(found))


def _kind_of(document: dict[str, Any]) -> Kind:
    if isinstance(document.get("events"), list):
        return "distribution"
    if isinstance(document.get("event_data"), dict):
        return "harbor"
    if isinstance(document.get("push_data"), dict):
        return "dockerhub"
    if "updated_tags" in document and "docker_url" in document:
        return "quay"
    if isinstance(document.get("target"), dict) and "action" in document:
        return "acr"
    return "unknown"


_Found = Iterator[tuple[Any, Any, Any]]


def _distribution(document: dict[str, Any]) -> _Found:
    for event in document["events"]:
        if isinstance(event, dict):
            yield from _event(event)


def _event(event: dict[str, Any]) -> _Found:
    """One event of distribution; ACR sends it without the envelope."""
    target, request = _table(event, "target"), _table(event, "request")
    media_type = target.get("mediaType")
    if event.get("action") != "push" or not isinstance(media_type, str):
        return
    if media_type in MANIFEST_MEDIA_TYPES:
        yield request.get("host"), target.get("repository"), target.get("tag")


def _harbor(document: dict[str, Any]) -> _Found:
    if document.get("type") != "PUSH_ARTIFACT":
        return
    data = document["event_data"]
    repository = _table(data, "repository").get("repo_full_name")
    resources = data.get("resources")
    for resource in resources if isinstance(resources, list) else ():
        if isinstance(resource, dict):
            url = resource.get("resource_url")
            host = url.partition("/")[0] if isinstance(url, str) else None
            yield host, repository, resource.get("tag")


def _dockerhub(document: dict[str, Any]) -> _Found:
    """`callback_url` is never called: it would make us ask whatever the sender likes."""
    repository = _table(document, "repository").get("repo_name")
    yield DOCKER_HUB, repository, document["push_data"].get("tag")


def _quay(document: dict[str, Any]) -> _Found:
    url, tags = document["docker_url"], document["updated_tags"]
    if not isinstance(url, str) or not isinstance(tags, (list, dict)):
        return
    host, _, repository = url.partition("/")
    for tag in tags:  # of a list, or the keys of an older Quay's map of tags to image ids
        yield host, repository, tag


def _unknown(document: dict[str, Any]) -> _Found:
    return iter(())


_READERS: Final = {
    "distribution": _distribution,
    "acr": _event,
    "harbor": _harbor,
    "dockerhub": _dockerhub,
    "quay": _quay,
    "unknown": _unknown,
}


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}


def _push(host: Any, repository: Any, tag: Any) -> Push | None:
    if not (isinstance(host, str) and isinstance(repository, str) and isinstance(tag, str)):
        return None
    if not valid_tag(tag):
        return None
    try:
        name: ImageName = image_name(canonical_upstream(host), repository)
    except ValueError:
        return None
    return Push(name.upstream, name.repository, tag)
