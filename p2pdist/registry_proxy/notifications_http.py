"""`POST /p2pdist/v1/notifications`: where registries tell of pushes."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import product
from typing import Final

from aiohttp import hdrs, web

from p2pdist.errors import RegistryError, StoreError
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import canonical_upstream, image_name
from p2pdist.oci.routes import split_target
from p2pdist.process import audit, logs
from p2pdist.process.metrics import Sample
from p2pdist.registry_proxy.core.notifications import KINDS, Push, parse_notification
from p2pdist.registry_proxy.replication import Replication

log = logging.getLogger(__name__)

PATH: Final = "/p2pdist/v1/notifications"
SECRET_HEADER: Final = "X-P2pdist-Secret"  # noqa: S105  # the header's name
BODY_BYTES_MAX: Final = 1 << 20
BODY_S: Final = 10.0
# Of 1 MiB each; whoever comes next is told to come again.
BODIES_MAX: Final = 16


class Notifications:
    """The handler; `aliases`: other names (as senders call them) of our upstreams."""

    def __init__(
        self,
        secret: bytes | None,
        replication: Replication | None,
        *,
        upstreams: Collection[str],
        aliases: Mapping[str, str],
    ) -> None:
        self._secret = secret
        self._replication = replication
        self._upstreams = upstreams
        self._aliases = dict(aliases)
        self._bodies = 0
        self._refusals = audit.Refusals()
        self.counts: Counter[tuple[str, str]] = Counter()

    def samples(self) -> Iterable[Sample]:
        for kind, result in product(KINDS, ("queued", "ignored", "refused")):
            yield Sample(
                "p2pdist_notifications_total", "counter", "Push notifications by result.",
                {"kind": kind, "result": result}, self.counts[kind, result],
            )  # fmt: skip

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """202 for what was understood; no word of the request's target gets into a log."""
        if self._secret is None:
            raise RegistryError(404, "UNSUPPORTED", "no such endpoint")
        if request.method != hdrs.METH_POST:
            raise RegistryError(405, "UNSUPPORTED", "notifications are posted")
        _, _, query = split_target(request.raw_path)
        if not self._authorized(request, query):
            return self._stranger(request.remote or "")
        if self._bodies >= BODIES_MAX:
            return self._refused(503, "busy", "too many notifications at once")
        self._bodies += 1
        try:
            body = await _read(request)
        except TimeoutError:
            return self._refused(408, "timeout", "the body did not come")
        finally:
            self._bodies -= 1
        if body is None:
            return self._refused(413, "too_large", f"more than {BODY_BYTES_MAX} bytes")
        return await self._take(body, query.get("upstream"))

    async def _take(self, body: bytes, upstream: str | None) -> web.Response:
        try:
            found = parse_notification(body)
            host = canonical_upstream(upstream) if upstream else None
        except ValueError as error:
            return self._refused(400, "bad_request", str(error))
        wanted = [name for push in found.pushes if (name := self._name_of(push, host)) is not None]
        queued, room = 0, True
        if self._replication is not None and wanted:
            try:
                queued, room = await self._replication.heard(wanted)
            except StoreError as error:
                logs.event(log, logging.ERROR, "replication.not_stored", error=str(error))
                room = False
        if not room:
            return self._refused(503, "busy", "the queue is full", found.kind)
        self.counts[found.kind, "queued" if queued else "ignored"] += 1
        return web.json_response({"queued": queued}, status=202)

    def _name_of(self, push: Push, host: str | None) -> tuple[ImageName, str] | None:
        """The image by the name of our upstream; None for a registry that is none of ours."""
        told = host or push.host
        upstream = told if told in self._upstreams else self._aliases.get(told)
        if upstream is None:
            return None
        try:
            return image_name(upstream, push.repository), push.tag
        except ValueError:
            return None

    def _authorized(self, request: web.Request, query: Mapping[str, str]) -> bool:
        """By header, or by `?secret=` for Docker Hub and Quay, which can send none."""
        assert self._secret is not None
        authorization = request.headers.get(hdrs.AUTHORIZATION, "")
        scheme, _, token = authorization.partition(" ")
        given = [
            token.strip() if scheme.lower() == "bearer" else authorization,
            request.headers.get(SECRET_HEADER, ""),
            query.get("secret", ""),
        ]
        expected = hashlib.sha256(self._secret).digest()
        matches = [hmac.compare_digest(_hash(text), expected) for text in given]
        return any(matches)

    def _stranger(self, peer: str) -> web.Response:
        """Said less often than it happens: anybody may come."""
        self.counts["unknown", "refused"] += 1
        text = "the secret is missing or wrong"
        self._refusals.event(
            audit.log, logging.WARNING, "notification.refused", who=audit.NOBODY, peer=peer,
            reason=text, status=401,
        )  # fmt: skip
        return web.json_response({"code": "unauthorized", "message": text}, status=401)

    def _refused(self, status: int, code: str, message: str, kind: str = "unknown") -> web.Response:
        self.counts[kind, "refused"] += 1
        logs.event(
            log, logging.WARNING, "notification.refused", kind=kind, status=status, error=message
        )
        return web.json_response({"code": code, "message": message}, status=status)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


async def _read(request: web.Request) -> bytes | None:
    """The body; None for one that is too large. Raises TimeoutError."""
    length = request.content_length
    if length is not None and length > BODY_BYTES_MAX:
        return None
    parts, size = [], 0
    async with asyncio.timeout(BODY_S):
        async for part in request.content.iter_chunked(64 << 10):
            size += len(part)
            if size > BODY_BYTES_MAX:
                return None
            parts.append(part)
    return b"".join(parts)
