"""Asks a tracker's job API: files jobs, reads how they stand, cancels, retries, resumes them."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import aiohttp
import msgspec

from p2pdist.errors import P2pdistError
from p2pdist.model.jobs import (
    JobAnswer,
    JobError,
    JobList,
    JobRequest,
    JobSpec,
    JobStatus,
)
from p2pdist.registry.reading.body import read_bounded

TIMEOUT_S: Final = 10.0
# 30,000 hosts at 250 bytes each, the answer to `?hosts=all`.
ANSWER_BYTES_MAX: Final = 64 << 20

T = TypeVar("T")


class JobsError(P2pdistError):
    """A tracker refused or did not answer; `status` 0: no answer. `code` is that of `JobError`."""

    def __init__(self, message: str, *, status: int = 0, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class JobsClient:
    """One tracker by the base URL of its admin port; `session` is the caller's to close.

    `token` may be replaced at any time: it changes with the cluster secret.
    """

    def __init__(self, base_url: str, token: str, session: aiohttp.ClientSession) -> None:
        self.base_url = base_url.rstrip("/")
        self.token = token
        self._session = session

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
        url = f"{self.base_url}/api/v1/jobs{tail}"
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._session.request(
                    method, url, data=body, headers=headers, allow_redirects=False
                ) as answer,
            ):
                data = await read_bounded(answer, ANSWER_BYTES_MAX, idle_s=TIMEOUT_S)
        except (aiohttp.ClientError, OSError, TimeoutError, P2pdistError) as error:
            why = str(error) or type(error).__name__
            raise JobsError(f"the tracker at {self.base_url} does not answer: {why}") from None
        if answer.status not in (200, 201):
            raise _refusal(self.base_url, answer.status, data)
        try:
            return msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise JobsError(f"{self.base_url} gives no answer of a tracker") from None


def _refusal(base_url: str, status: int, data: bytes) -> JobsError:
    try:
        error = msgspec.json.decode(data, type=JobError)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return JobsError(f"{base_url} answered {status}", status=status)
    return JobsError(error.message, status=status, code=error.code)
