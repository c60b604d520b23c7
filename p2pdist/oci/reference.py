"""Image references and the parts of them: hosts, repositories, tags.

Grammar: distribution/reference `regexp.go` for what users type, OCI distribution specification 1.1
"Pulling manifests" for what registries accept.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from p2pdist.model.ids import Digest, parse_digest
from p2pdist.oci.names import ImageName

DOCKER_HUB: Final = "docker.io"
DEFAULT_TAG: Final = "latest"

# Many clients refuse longer ones (specification, "Pulling manifests"; 255 counts the host too).
NAME_LENGTH_MAX: Final = 255

_PART: Final = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY: Final = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG: Final = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST: Final = re.compile(
    rf"(\[[0-9a-f:.]{{2,45}}\]|{_LABEL}(?:\.{_LABEL})*)(\.?)(?::([0-9]{{1,5}}))?"
)

# What clients call Docker Hub: the name in references, the old index, the API endpoint.
_HUB_ALIASES: Final = frozenset({DOCKER_HUB, "index.docker.io", "registry-1.docker.io"})
_HTTPS_PORT: Final = 443
_PORT_MAX: Final = 65535


@dataclass(frozen=True, slots=True)
class Reference:
    """What a user names: an image, by tag or digest or both (then the digest decides)."""

    name: ImageName
    tag: str | None
    digest: Digest | None

    @property
    def target(self) -> str:
        """What to ask a registry for: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def valid_repository(text: str) -> bool:
    return len(text) <= NAME_LENGTH_MAX and _REPOSITORY.fullmatch(text) is not None


def valid_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def looks_like_host(component: str) -> bool:
    """Tell a registry host from a repository's first component, as Docker does."""
    return "." in component or ":" in component or component.lower() == "localhost"


def canonical_upstream(host: str) -> str:
    """Return the one spelling of a registry's `host[:port]`; raise ValueError for another form.

    Case, a trailing dot, the default port and Docker Hub's other names make no difference: they
    would otherwise be several keys for one registry, and ways around an allow-list.
    """
    match = _HOST.fullmatch(host.lower()) if len(host) <= NAME_LENGTH_MAX else None
    if match is None:
        fix = "; a host alone, such as ghcr.io:443" if "/" in host else ""
        raise ValueError(f"not a registry host: {host[:80]!r}{fix}")
    name, port = match[1], match[3]
    if port is not None and not 1 <= int(port) <= _PORT_MAX:
        raise ValueError(f"not a port: {port}")
    if port is None or int(port) == _HTTPS_PORT:
        return DOCKER_HUB if name in _HUB_ALIASES else name
    return f"{name}:{int(port)}"


def image_name(upstream: str, repository: str) -> ImageName:
    """Join a canonical upstream and a repository; raise ValueError for an invalid repository.

    `library/` is Docker Hub's own short cut: no other registry has it.
    """
    if upstream == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not valid_repository(repository) or len(upstream) + 1 + len(repository) > NAME_LENGTH_MAX:
        raise ValueError(f"not a repository name: {repository[:80]!r}")
    return ImageName(upstream, repository)


def parse_reference(text: str, *, default_upstream: str = DOCKER_HUB) -> Reference:
    """Parse what a user types: `alpine`, `localhost:5000/x:1`, `ghcr.io/a/b:tag@sha256:…`.

    Raise ValueError with a text that names the wrong part.
    """
    rest, at, digest_text = text.partition("@")
    digest = parse_digest(digest_text) if at else None
    rest, tag = _split_tag(rest)
    if tag is not None and not valid_tag(tag):
        raise ValueError(f"not a tag: {tag[:140]!r}")
    host, slash, repository = rest.partition("/")
    if slash and looks_like_host(host):
        return Reference(image_name(canonical_upstream(host), repository), tag, digest)
    return Reference(image_name(canonical_upstream(default_upstream), rest), tag, digest)


def _split_tag(text: str) -> tuple[str, str | None]:
    """Cut the tag off: a colon counts after the last slash only, else it starts a port."""
    head, slash, last = text.rpartition("/")
    last, colon, tag = last.partition(":")
    return head + slash + last, tag if colon else None
