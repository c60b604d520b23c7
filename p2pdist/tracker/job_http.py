"""The job API on the tracker's admin port.

Who may call it: whoever has the operator token, which is derived from the cluster's secret; without
it every route answers 401, whatever the rest of the request says.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, cast, get_args

import msgspec
from aiohttp import web

from p2pdist.errors import StoreError
from p2pdist.model.cluster_secrets import SecretSource
from p2pdist.model.control import JOB_ID
from p2pdist.model.jobs import JobError, JobList, JobRequest
from p2pdist.process import logs
from p2pdist.process.operator_token import token_matches
from p2pdist.tracker.core.jobs.book import TooMany
from p2pdist.tracker.core.jobs.views import job_status
from p2pdist.tracker.job_desk import JobDesk, NoHosts, Which

# 64 images of 100 layers on 4 platforms.
BODY_BYTES_MAX: Final = 8 << 20

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Verb = Literal["cancel", "retry", "resume"]

log = logging.getLogger(__name__)


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class JobHttp:
    def __init__(self, desk: JobDesk, secret: SecretSource) -> None:
        """A token of any secret that is believed will do."""
        self._desk = desk
        self._secret = secret

    def routes(self) -> Sequence[web.RouteDef]:
        base = "/api/v1/jobs"
        return [
            web.post(base, self._guarded(self._submit)),
            web.get(base, self._guarded(self._list)),
            web.get(f"{base}/{{job}}", self._guarded(self._show)),
            web.post(f"{base}/{{job}}/{{verb}}", self._guarded(self._act)),
        ]

    def _guarded(self, handler: Handler) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                told = request.headers.get("Authorization", "")
                if not any(token_matches(secret, told) for secret in self._secret().each):
                    raise _Refused(401, "unauthorized", "no token, or not that of this cluster")
                return await handler(request)
            except _Refused as refused:
                return await _answer(JobError(refused.code, refused.message), refused.status)
            except StoreError as error:
                return await _answer(JobError("store", str(error)), 503)

        return guarded

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        body = await _read(request)
        try:
            # A full-size body takes some 40 ms to decode.
            asked = await asyncio.to_thread(msgspec.json.decode, body, type=JobRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Refused(400, "bad_request", f"not a job: {error}") from None
        try:
            answer = await self._desk.submit(asked)
        except NoHosts as error:
            raise _Refused(404, "no_hosts", str(error)) from None
        except TooMany as error:
            raise _Refused(429, "too_many", str(error)) from None
        except ValueError as error:
            raise _Refused(400, "bad_request", str(error)) from None
        if answer.id and not answer.existing:
            who = asked.spec.note or "unknown"
            logs.event(log, logging.INFO, "job.submitted", job=answer.id, by=who)
        return await _answer(answer, 201 if answer.id and not answer.existing else 200)

    async def _list(self, request: web.Request) -> web.StreamResponse:
        return await _answer(JobList(self._desk.listing()), 200)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        which = request.query.get("hosts", "problems")
        if which not in get_args(Which):
            raise _Refused(400, "bad_request", "hosts is one of problems, all and none")
        status = await self._desk.show(_job_id(request), cast("Which", which))
        if status is None:
            raise _no_such_job(request)
        return await _answer(status, 200)

    async def _act(self, request: web.Request) -> web.StreamResponse:
        verb = request.match_info["verb"]
        if verb not in get_args(Verb):
            raise _Refused(404, "not_found", "a job can be cancelled, retried and resumed")
        job = await self._desk.act(_job_id(request), cast("Verb", verb))
        if job is None:
            raise _no_such_job(request)
        logs.event(log, logging.INFO, "job.changed", job=job.id, wish=verb)
        return await _answer(job_status(job, []), 200)


def _job_id(request: web.Request) -> str:
    job_id = request.match_info["job"]
    if JOB_ID.fullmatch(job_id) is None:
        raise _no_such_job(request)
    return job_id


def _no_such_job(request: web.Request) -> _Refused:
    return _Refused(404, "not_found", f"no job {request.match_info['job'][:64]!r}")


async def _read(request: web.Request) -> bytes:
    body = bytearray()
    async for part in request.content.iter_any():
        body += part
        if len(body) > BODY_BYTES_MAX:
            raise _Refused(413, "bad_request", f"a job has at most {BODY_BYTES_MAX} bytes")
    return bytes(body)


async def _answer(record: msgspec.Struct, status: int) -> web.Response:
    """In a thread: 10,000 hosts take 10 ms to encode."""
    body = await asyncio.to_thread(msgspec.json.encode, record)
    return web.Response(body=body + b"\n", status=status, content_type="application/json")
