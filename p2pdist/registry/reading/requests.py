"""One request to an upstream: credentials, redirects, limits, and what a refusal says."""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
import msgspec
from aiohttp import hdrs
from yarl import URL

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.seldom import Seldom
from p2pdist.oci.auth import Challenge, parse_challenges
from p2pdist.oci.callers import Caller
from p2pdist.oci.refusals import fix_of
from p2pdist.process import logs
from p2pdist.process.clock import unix_s
from p2pdist.registry.reading.auth import UpstreamAuth, check_service
from p2pdist.registry.reading.body import read_bounded
from p2pdist.registry.reading.callers import CallerAuths
from p2pdist.registry.reading.net import BadAnswer, UpstreamEntry, UpstreamNet

log = logging.getLogger(__name__)

ERROR_BODY_BYTES_MAX: Final = 64 * 1024

# containers/image honours Retry-After up to 60 s; without one, enough to let a burst pass.
_COOL_DOWN_MAX_S: Final = 60.0
_COOL_DOWN_DEFAULT_S: Final = 5.0

NO_ANSWER: Final = "none"
ANSWERS: Final = ("2xx", "4xx", "429", "5xx", NO_ANSWER)

# What a registry that is asked can come to; the others are said of proxies and of our own rules.
REGISTRY_REASONS: Final = (
    ErrorReason.UNKNOWN,
    ErrorReason.CREDENTIALS,
    ErrorReason.DENIED,
    ErrorReason.RATE_LIMITED,
    ErrorReason.REGISTRY_DOWN,
    ErrorReason.REGISTRY_NAME,
    ErrorReason.REGISTRY_TLS,
    ErrorReason.REGISTRY_PRIVATE,
    ErrorReason.REGISTRY_ERROR,
    ErrorReason.EXHAUSTED,
)

_LEADING_NUMBER: Final = re.compile(r"\d{1,9}")
_ERROR_CODE: Final = re.compile(r"[A-Z_]{1,40}")


class UpstreamRefusal(UpstreamError):
    """The upstream answered, but not with what was asked for; `code` is its OCI error code, and
    `challenges` are its `WWW-Authenticate`, where a proxy of ours passed them on."""

    def __init__(
        self,
        message: str,
        *,
        status: int,
        code: str = "",
        reason: ErrorReason | None = None,
        challenges: Sequence[str] = (),
    ) -> None:
        super().__init__(message, status=status, reason=reason)
        self.code = code
        self.challenges = tuple(challenges)


class StorageRefusal(UpstreamError):
    """The upstream sent us on to a host that refused: no verdict of the upstream itself."""


@dataclass(slots=True)
class UpstreamCounters:
    """Plain sums for the metrics; the upstreams are the configured ones, so labels are bounded."""

    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By upstream and class of the answer: `1xx` to `5xx`, `429`, `none`."""
    failures: Counter[tuple[str, ErrorReason]] = field(default_factory=Counter)
    """By upstream and reason: each try, but for a HEAD that was refused, which decides nothing."""
    payload_bytes: Counter[str] = field(default_factory=Counter)
    """Bytes of blobs and manifests, by upstream."""
    rate_limit_remaining: dict[str, int] = field(default_factory=dict)
    cool_downs: Counter[str] = field(default_factory=Counter)
    """Answers 429, by upstream."""


class _ErrorJson(msgspec.Struct):
    code: str = ""


class _ErrorsJson(msgspec.Struct):
    errors: list[_ErrorJson] = []


class UpstreamRequests:
    """Asks upstreams and gives back the answers that were wanted; counts them all."""

    def __init__(self, net: UpstreamNet, hosts: Iterable[str]) -> None:
        """`hosts`: the upstreams, whose counters are there from the start.

        A counter that appears with its first event hides it from every rate.
        """
        self._net = net
        self.auth = UpstreamAuth(net)
        self._callers = CallerAuths(net)
        self.counters = UpstreamCounters()
        for host in hosts:
            self.counters.payload_bytes[host] = 0
            self.counters.requests.update({(host, answer): 0 for answer in ANSWERS})
            self.counters.failures.update({(host, reason): 0 for reason in REGISTRY_REASONS})
        self._seldom: Seldom[tuple[str, ErrorReason]] = Seldom()
        self._cool_until_s: dict[tuple[str, str], float] = {}
        """By upstream and kind of request: few, because both are from closed sets."""

    async def close(self) -> None:
        await self.auth.close()
        await self._callers.close()

    def forget(self, upstream: str, caller: Caller) -> None:
        """Ask for new tokens with its account from now on."""
        self._callers.forget(upstream, caller)

    async def challenges(self, entry: UpstreamEntry) -> list[Challenge]:
        """What the registry wants to see of who asks; Raises UpstreamError, also for a token
        service that is not its own."""
        found = await self._ping(entry)
        for challenge in found:
            if challenge.scheme == "bearer":
                realm, service = (challenge.params.get(key, "") for key in ("realm", "service"))
                await asyncio.to_thread(check_service, entry, realm, service)
        return found

    @asynccontextmanager
    async def open(
        self,
        entry: UpstreamEntry,
        method: str,
        kind: str,
        url: str,
        *,
        scope: str,
        headers: Mapping[str, str],
        expect: tuple[int, ...],
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask with credentials; raise UpstreamRefusal for a status that is not `expect`ed.

        `kind` is `manifests`, `blobs`, `tags` or `referrers`: each cools down on its own.
        """
        try:
            self._check_cool_down(entry, kind)
            response = await self._answer(entry, method, kind, url, scope, headers, expect)
        except UpstreamError as error:
            if method != hdrs.METH_HEAD or not error.status:
                self._note_failure(entry, error)
            raise
        try:
            yield response
        finally:
            response.close()

    async def _answer(
        self,
        entry: UpstreamEntry,
        method: str,
        kind: str,
        url: str,
        scope: str,
        headers: Mapping[str, str],
        expect: tuple[int, ...],
    ) -> aiohttp.ClientResponse:
        """The answer that was `expect`ed, which is the caller's to close."""
        response = await self._authorized(entry, method, url, headers, scope)
        expired = response.status in (400, 401, 403) and _foreign(entry, response)
        if expired and method != hdrs.METH_HEAD:
            response.close()  # a presigned URL that expired under way: ask for another one
            response = await self._authorized(entry, method, url, headers, scope)
        try:
            self._note_limits(entry, kind, response)
            if response.status not in expect:
                raise await self._refusal(entry, response)
        except BaseException:
            response.close()
            raise
        return response

    def _note_failure(self, entry: UpstreamEntry, error: UpstreamError) -> None:
        """Count it, and say it once a minute, with what to do."""
        host, reason = entry.host, error.reason
        self.counters.failures[host, reason] += 1
        if requests := self._seldom.happened((host, reason), asyncio.get_running_loop().time()):
            level = logging.INFO if reason is ErrorReason.UNKNOWN else logging.WARNING
            logs.event(
                log, level, "upstream.failed", upstream=host, reason=reason, error=str(error),
                fix=fix_of(reason, host), requests=requests,
            )  # fmt: skip

    async def _authorized(
        self, entry: UpstreamEntry, method: str, url: str, headers: Mapping[str, str], scope: str
    ) -> aiohttp.ClientResponse:
        """Ask with what is known to do, and once more with the answer to a 401."""
        auth, entry = self._callers.of(entry) if entry.by_caller else (self.auth, entry)
        known = await auth.known(entry, scope)
        response = await self._follow(entry, method, url, headers, known)
        if response.status != 401 or _foreign(entry, response):
            return response
        try:
            challenges = _challenges(response) or await self._ping(entry)
            better = await auth.answer(entry, scope, challenges, rejected=known)
            if better is None:
                raise await self._refusal(entry, response)
        finally:
            response.close()
        return await self._follow(entry, method, url, headers, better)

    async def _ping(self, entry: UpstreamEntry) -> list[Challenge]:
        """Ask `/v2/` for the challenge: gcr.io has sent 401 without one elsewhere."""
        response = await self._follow(entry, "GET", f"{entry.url.rstrip('/')}/v2/", {}, None)
        response.close()
        return _challenges(response)

    async def _follow(
        self,
        entry: UpstreamEntry,
        method: str,
        url: str,
        headers: Mapping[str, str],
        authorization: str | None,
    ) -> aiohttp.ClientResponse:
        try:
            response = await self._net.follow(
                entry, method, url, headers, authorization=authorization
            )
        except UpstreamError:
            self.counters.requests[entry.host, NO_ANSWER] += 1
            raise
        self.counters.requests[entry.host, _answer_class(response.status)] += 1
        return response

    @staticmethod
    async def _refusal(entry: UpstreamEntry, response: aiohttp.ClientResponse) -> UpstreamError:
        status = response.status
        if _foreign(entry, response):
            return StorageRefusal(f"the storage of {entry.host} answered {status}", status=502)
        if response.status < 400:
            return BadAnswer(f"{entry.host} answered {status}")
        code = ""
        if response.method != hdrs.METH_HEAD:
            code = error_code(await error_body_of(response))
        text = _told(entry, status, code)
        return UpstreamRefusal(text, status=status, code=code)

    # --- limits ---------------------------------------------------------------------------------

    def _check_cool_down(self, entry: UpstreamEntry, kind: str) -> None:
        until_s = self._cool_until_s.get((entry.host, kind), 0.0)
        if asyncio.get_running_loop().time() < until_s:
            raise UpstreamRefusal(
                f"{entry.host} asked not to be asked for {kind} for now",
                status=429,
                code="TOOMANYREQUESTS",
            )

    def _note_limits(
        self, entry: UpstreamEntry, kind: str, response: aiohttp.ClientResponse
    ) -> None:
        remaining = _LEADING_NUMBER.match(response.headers.get("ratelimit-remaining", ""))
        if remaining is not None:
            self.counters.rate_limit_remaining[entry.host] = int(remaining[0])
        if response.status == 429 and not _foreign(entry, response):
            wait_s = _retry_after_s(response.headers.get(hdrs.RETRY_AFTER, ""))
            now_s = asyncio.get_running_loop().time()
            self._cool_until_s[entry.host, kind] = now_s + wait_s
            self.counters.cool_downs[entry.host] += 1


def _told(entry: UpstreamEntry, status: int, code: str) -> str:
    to = f" to {entry.asker}" if status in (401, 403) else ""
    return f"{entry.host} answered {status}{' ' if code else ''}{code}{to}"


def _answer_class(status: int) -> str:
    """Bounded, whatever a registry sends; 429 counts as trouble, other refusals do not."""
    return "429" if status == 429 else f"{min(max(status // 100, 1), 5)}xx"


def _foreign(entry: UpstreamEntry, response: aiohttp.ClientResponse) -> bool:
    """Whether a redirect led away from the upstream itself."""
    return response.url.origin() != URL(entry.url).origin()


def _challenges(response: aiohttp.ClientResponse) -> list[Challenge]:
    return parse_challenges(response.headers.getall(hdrs.WWW_AUTHENTICATE, ()))


async def error_body_of(response: aiohttp.ClientResponse) -> bytes:
    """The body of an error as far as it came; empty where it is too long."""
    try:
        return await read_bounded(response, ERROR_BODY_BYTES_MAX)
    except UpstreamError:
        return b""


def error_code(body: bytes) -> str:
    """The OCI error code of an answer, or an empty text where its body names none."""
    try:
        errors = msgspec.json.decode(body, type=_ErrorsJson).errors
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    code = errors[0].code if errors else ""
    return code if _ERROR_CODE.fullmatch(code) else ""


def _retry_after_s(text: str) -> float:
    """Seconds to wait, from either form of Retry-After (RFC 9110, 10.2.3)."""
    if _LEADING_NUMBER.fullmatch(text):
        return min(float(text), _COOL_DOWN_MAX_S)
    try:
        wait_s = parsedate_to_datetime(text).timestamp() - unix_s()
    except (ValueError, OverflowError):
        return _COOL_DOWN_DEFAULT_S
    return min(max(wait_s, 0.0), _COOL_DOWN_MAX_S)
