"""The job API on the tracker's admin port.

Who may call it says `job_callers`: everybody else hears nothing of jobs, whatever the rest of the
request says. What is changed here, and who was refused, is in the audit log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Literal, cast, get_args

import msgspec
from aiohttp import web
from msgspec.structs import replace

from p2pdist.errors import StoreError
from p2pdist.model.control import JOB_ID
from p2pdist.model.jobs import JobError, JobList, JobRequest
from p2pdist.process import audit, logs
from p2pdist.process.tls import CERTIFICATE
from p2pdist.tracker.core.jobs.book import TooMany
from p2pdist.tracker.core.jobs.job import Job
from p2pdist.tracker.core.jobs.views import job_status
from p2pdist.tracker.job_callers import Caller, JobCallers, NotLetIn
from p2pdist.tracker.job_desk import JobDesk, NoHosts, Which

# 64 images of 100 layers on 4 platforms.
BODY_BYTES_MAX: Final = 8 << 20
# Of a job in a line of the log.
LOGGED_IMAGES_MAX: Final = 16
LOGGED_TEXT_MAX: Final = 200

Handler = Callable[[web.Request, Caller], Awaitable[web.StreamResponse]]
Verb = Literal["cancel", "retry", "resume"]


class _Refused(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        self.status, self.code, self.message = status, code, message


class JobHttp:
    def __init__(self, desk: JobDesk, callers: JobCallers) -> None:
        self._desk = desk
        self._callers = callers
        self._refusals = audit.Refusals()

    def routes(self) -> Sequence[web.RouteDef]:
        base = "/api/v1/jobs"
        return [
            web.post(base, self._guarded(self._submit)),
            web.get(base, self._guarded(self._list)),
            web.get(f"{base}/{{job}}", self._guarded(self._show)),
            web.post(f"{base}/{{job}}/{{verb}}", self._guarded(self._act)),
        ]

    def _guarded(self, handler: Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def guarded(request: web.Request) -> web.StreamResponse:
            try:
                caller = self._callers.judged(
                    request.get_extra_info(CERTIFICATE), request.headers.get("Authorization", "")
                )
                return await handler(request, caller)
            except NotLetIn as refused:
                self._note(request, refused)
                return await _answer(JobError(refused.code, str(refused)), refused.status)
            except _Refused as refused:
                return await _answer(JobError(refused.code, refused.message), refused.status)
            except StoreError as error:
                return await _answer(JobError("store", str(error)), 503)

        return guarded

    def _note(self, request: web.Request, refused: NotLetIn) -> None:
        self._refusals.event(
            audit.log, logging.WARNING, "job.refused", who=refused.who, peer=request.remote or "",
            reason=refused.code, wish=_wish(request),
        )  # fmt: skip

    async def _submit(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        body = await _read(request)
        try:
            # A full-size body takes some 40 ms to decode.
            asked = await asyncio.to_thread(msgspec.json.decode, body, type=JobRequest)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _Refused(400, "bad_request", f"not a job: {error}") from None
        caller.check(asked.spec)
        named = "" if caller.identity is None else str(caller)
        asked = replace(asked, spec=replace(asked.spec, filed_by=named))
        try:
            answer = await self._desk.submit(asked)
        except NoHosts as error:
            raise _Refused(404, "no_hosts", str(error)) from None
        except TooMany as error:
            raise _Refused(429, "too_many", str(error)) from None
        except ValueError as error:
            raise _Refused(400, "bad_request", str(error)) from None
        if answer.id and not answer.existing:
            logs.event(
                audit.log, logging.INFO, "job.submitted", audit="done", who=str(caller),
                peer=request.remote, job=answer.id, by=asked.spec.note or "unknown",
                images=[str(image) for image in asked.spec.images[:LOGGED_IMAGES_MAX]],
                hosts=asked.spec.hosts[:LOGGED_TEXT_MAX],
            )  # fmt: skip
        return await _answer(answer, 201 if answer.id and not answer.existing else 200)

    async def _list(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        caller.check_all()
        return await _answer(JobList(self._desk.listing()), 200)

    async def _show(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        which = request.query.get("hosts", "problems")
        if which not in get_args(Which):
            raise _Refused(400, "bad_request", "hosts is one of problems, all and none")
        job = self._job(request, caller)
        status = await self._desk.show(job, cast("Which", which))
        return await _answer(status, 200)

    async def _act(self, request: web.Request, caller: Caller) -> web.StreamResponse:
        verb = request.match_info["verb"]
        if verb not in get_args(Verb):
            raise _Refused(404, "not_found", "a job can be cancelled, retried and resumed")
        job = self._job(request, caller)
        await self._desk.act(job, cast("Verb", verb))
        logs.event(
            audit.log, logging.INFO, "job.changed", audit="done", who=str(caller),
            peer=request.remote, job=job.id, wish=verb,
        )  # fmt: skip
        return await _answer(job_status(job, []), 200)

    def _job(self, request: web.Request, caller: Caller) -> Job:
        name = request.match_info["job"]
        job = self._desk.job(name) if JOB_ID.fullmatch(name) else None
        if job is None:
            raise _Refused(404, "not_found", f"no job {name[:64]!r}")
        caller.check(job.spec)
        return job


def _wish(request: web.Request) -> str:
    verb = request.match_info.get("verb")
    if verb is None:
        return "submit" if request.method == "POST" else "read"
    return verb if verb in get_args(Verb) else "unknown"


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
