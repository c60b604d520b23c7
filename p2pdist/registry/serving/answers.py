"""The short answers of a registry endpoint, and the headers that they share with blobs."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlencode

import msgspec
from aiohttp import hdrs, web

from p2pdist.errors import CallerRefused, RegistryError
from p2pdist.model.ids import Digest
from p2pdist.oci.errors import error_body
from p2pdist.oci.routes import ReferrersRoute, TagsRoute
from p2pdist.registry.ports import Manifest, TagPage

CONTENT_DIGEST: Final = "Docker-Content-Digest"
NAMESPACE: Final = "OCI-Namespace"
REQUEST_ID: Final = "X-P2pdist-Request-Id"
STATEMENT: Final = "P2pdist-Statement"
REASON: Final = "P2pdist-Reason"
"""Of an error, as in its body: the answer to a HEAD has none."""

_FILTERS_APPLIED: Final = "OCI-Filters-Applied"
# Out of descriptors: accepting starts again after a second, too.
_RETRY_AFTER_S: Final = "1"
_JSON: Final = "application/json"
_FOREVER: Final = "max-age=31536000, immutable"

# Specification, "Warnings": at most 4096 bytes in all; ours is one short sentence.
_WARNING_LENGTH_MAX: Final = 512
# A line of a terminal or two, far below what any client takes of a status line.
_REASON_LENGTH_MAX: Final = 240


def etag_of(digest: Digest) -> str:
    """Quoted, as RFC 9110 wants it; docker-registry 2.8.2 sends it bare on cold blobs."""
    return f'"{digest}"'


def etag_matches(values: Iterable[str], etag: str) -> bool:
    """Evaluate If-None-Match (all its lines) by weak comparison."""
    tags = [tag.strip().removeprefix("W/") for value in values for tag in value.split(",")]
    return etag in tags or "*" in tags


def content_headers(digest: Digest, *, fixed: bool = True) -> dict[str, str]:
    """Name the content; `fixed`: it was asked for by digest and never changes."""
    return {
        CONTENT_DIGEST: digest,
        hdrs.ETAG: etag_of(digest),
        hdrs.CACHE_CONTROL: _FOREVER if fixed else "no-cache",
    }


def json_answer(body: bytes, headers: Mapping[str, str]) -> web.Response:
    return web.Response(body=body, headers={**headers, hdrs.CONTENT_TYPE: _JSON})


def error_answer(error: RegistryError, headers: Mapping[str, str]) -> web.Response:
    """A challenge only of a registry that decides by its callers, and never where dockerd would
    answer it with the user's Docker Hub password (`endpoint.py`)."""
    answer = web.Response(
        status=error.status,
        reason=_reason_phrase(error),
        body=error_body(error.code, str(error), error.reason),
        headers={**headers, hdrs.CONTENT_TYPE: _JSON},
    )
    if isinstance(error, CallerRefused):
        for challenge in error.challenges:
            answer.headers.add(hdrs.WWW_AUTHENTICATE, challenge)
    if error.reason is not None:
        answer.headers[REASON] = error.reason
    if error.status == 503:
        answer.headers[hdrs.RETRY_AFTER] = _RETRY_AFTER_S
    elif error.retry_after_s:
        answer.headers[hdrs.RETRY_AFTER] = str(math.ceil(error.retry_after_s))
    if error.status == 405:
        answer.headers[hdrs.ALLOW] = "GET, HEAD"
    return answer


def _reason_phrase(error: RegistryError) -> str | None:
    """What people get to see: of a 403 or 502 containerd, Podman and Skopeo print the status line
    alone (ctr 1.6.20, Skopeo 1.9.3), whatever its body says. RFC 9112, section 4, leaves it to us.

    None, which means the usual one, for what quotes a request: of a 400 or 404 the body is read.
    """
    if error.status != 403 and error.status < 500:
        return None
    text = _safe(str(error))[:_REASON_LENGTH_MAX]
    return f"{HTTPStatus(error.status).phrase}: {text}"


def not_modified(digest: Digest, headers: Mapping[str, str], *, fixed: bool) -> web.Response:
    return web.Response(status=304, headers={**headers, **content_headers(digest, fixed=fixed)})


def manifest_answer(manifest: Manifest, headers: Mapping[str, str], *, fixed: bool) -> web.Response:
    """The stored bytes and type, whatever the client accepts: a conversion changes the digest."""
    answer = web.Response(
        body=manifest.body,
        headers={
            **headers,
            **content_headers(manifest.digest, fixed=fixed),
            hdrs.CONTENT_TYPE: manifest.media_type,
        },
    )
    if manifest.statement is not None:
        answer.headers[STATEMENT] = base64.b64encode(manifest.statement).decode()
    if manifest.stale is not None:
        answer.headers[hdrs.WARNING] = _warning(manifest.stale)
    return answer


def tags_answer(route: TagsRoute, page: TagPage, headers: Mapping[str, str]) -> web.Response:
    """`Link` leads to the next page here, under the name that the client used."""
    # On the loop: 4 MiB of tags take 5 ms, and in a thread they would hold it as long.
    body = msgspec.json.encode({"name": route.path_name, "tags": page.tags})
    answer = json_answer(body, headers)
    if page.following is not None:
        query = page.following
        if NAMESPACE in headers:
            query += f"&{urlencode({'ns': headers[NAMESPACE]})}"
        path = quote(f"/v2/{route.path_name}/tags/list", safe="/:")
        answer.headers[hdrs.LINK] = f'<{path}?{query}>; rel="next"'
    return answer


def referrers_answer(
    route: ReferrersRoute, index: Manifest, headers: Mapping[str, str]
) -> web.Response:
    answer = web.Response(
        body=index.body,
        headers={
            **headers,
            hdrs.CONTENT_TYPE: index.media_type,
            hdrs.CACHE_CONTROL: "no-cache",
        },
    )
    if route.artifact_type is not None:
        answer.headers[_FILTERS_APPLIED] = "artifactType"
    return answer


def _warning(text: str) -> str:
    return f'299 - "{_safe(text, quoted=True)[:_WARNING_LENGTH_MAX]}"'


def _safe(text: str, *, quoted: bool = False) -> str:
    """What may stand in a header or status line."""
    barred = '"\\' if quoted else ""
    return "".join(c if c.isascii() and c.isprintable() and c not in barred else "?" for c in text)
