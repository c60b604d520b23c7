"""Asks a tracker's job API: files jobs, reads how they stand, cancels, retries, resumes them."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import aiohttp
import msgspec

from p2pdist.errors import P2pdistError
from p2pdist.model.jobs import (
    IDENTITY_REQUIRED,
    JobAnswer,
    JobError,
    JobList,
    JobRequest,
    JobSpec,
    JobStatus,
)
from p2pdist.registry.reading.body import read_bounded
from p2pdist.registry.reading.net_errors import cause, tls_fault

TIMEOUT_S: Final = 10.0
# 30,000 hosts at 250 bytes each, the answer to `?hosts=all`.
ANSWER_BYTES_MAX: Final = 64 << 20

NOT_BELIEVED: Final = "not_believed"
"""One end does not believe the other's certificate, or the tracker has none."""

T = TypeVar("T")


class JobsError(P2pdistError):
    """A tracker refused or did not answer; `status` 0: no answer. `code` is that of `JobError`, or
    NOT_BELIEVED."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True, slots=True)
class TrackerTls:
    """How to speak TLS with trackers' admin ports."""

    context: Callable[[], ssl.SSLContext | None]
    """Shows our certificate and believes trackers only; None: the certificate is no good now."""
    required: bool
    """Nothing is said in clear, nor to a tracker that takes no certificate."""


class JobsClient:
    """One tracker by the base URL of its admin port; `session` is the caller's to close.

    In clear `token` says that we may ask; it may be replaced at any time, as it changes with the
    cluster secret. With `tls` a certificate does: at once where that is
    required, else from when on the tracker asks for one.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        session: aiohttp.ClientSession,
        tls: TrackerTls | None = None,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.token = token
        self._session = session
        self._tls = tls
        self._in_tls = tls is not None and tls.required

    async def submit(self, spec: JobSpec, *, dry_run: bool = False) -> JobAnswer:
        body = msgspec.json.encode(JobRequest(spec, dry_run))
        return await self._ask("POST", "", JobAnswer, body)

    async def list(self) -> list[JobStatus]:
        return (await self._ask("GET", "", JobList)).jobs

    async def show(self, job: str, *, hosts: str = "problems") -> JobStatus:
        return await self._ask("GET", f"/{job}?hosts={hosts}", JobStatus)

    async def act(self, job: str, verb: str) -> JobStatus:
        """`verb` is `cancel`, `retry` or `resume`."""
        return await self._ask("POST", f"/{job}/{verb}", JobStatus, b"{}")

    async def _ask(self, method: str, tail: str, kind: type[T], body: bytes | None = None) -> T:
        try:
            return await self._asked(method, tail, kind, body)
        except JobsError as error:
            if error.code != IDENTITY_REQUIRED or self._tls is None or self._in_tls:
                raise
        self._in_tls = True
        return await self._asked(method, tail, kind, body)

    async def _asked(self, method: str, tail: str, kind: type[T], body: bytes | None) -> T:
        url, context = f"{self.base_url}/api/v1/jobs{tail}", self._context()
        headers = {"Content-Type": "application/json"}
        if context is None:
            headers["Authorization"] = f"Bearer {self.token}"
        else:
            url = url.replace("http://", "https://", 1)
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.request(
                    method,
                    url,
                    data=body,
                    headers=headers,
                    allow_redirects=False,
                    ssl=context or True,
                ) as answer,
            ):
                data = await read_bounded(answer, ANSWER_BYTES_MAX, idle_s=TIMEOUT_S)
        except (aiohttp.ClientError, OSError, TimeoutError, P2pdistError) as error:
            raise self._unanswered(error, in_tls=context is not None) from None
        if answer.status not in (200, 201):
            raise _refusal(self.base_url, answer.status, data)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise JobsError(f"{self.base_url} gives no answer of a tracker") from None

    def _context(self) -> ssl.SSLContext | None:
        """What to speak TLS with; None: it is spoken to in clear. Raises JobsError."""
        if self._tls is None or not self._in_tls:
            return None
        if (context := self._tls.context()) is None:
            raise JobsError("our certificate is no good now", code=NOT_BELIEVED)
        return context

    def _unanswered(self, error: Exception, *, in_tls: bool) -> JobsError:
        if self._tls is not None:
            self._in_tls = self._tls.required  # it may have been restarted without a certificate
        if in_tls and (why := tls_fault(error)):
            return JobsError(f"{self.base_url}: {why}", code=NOT_BELIEVED)
        return JobsError(f"the tracker at {self.base_url} does not answer: {_why(error)}")


def _why(error: Exception) -> str:
    match error:
        case P2pdistError():
            return str(error)
        case TimeoutError():
            return "nothing came in time"
        case aiohttp.ClientResponseError():  # of aiohttp's own making: statuses are looked at
            return "what it says is no HTTP"
        case _:
            return cause(error)


def _refusal(base_url: str, status: int, data: bytes) -> JobsError:
    try:
        error = msgspec.json.decode(data, type=JobError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return JobsError(f"{base_url} answered {status}", status=status)
    return JobsError(error.message, status=status, code=error.code)
