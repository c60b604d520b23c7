"""A tracker's job API that holds jobs and moves them as it is told."""

from __future__ import annotations

from typing import Any, Self

import msgspec
from aiohttp import web

from p2pdist.model.jobs import (
    DcStatus,
    JobAnswer,
    JobError,
    JobList,
    JobPlan,
    JobRequest,
    JobSpec,
    JobState,
    JobStatus,
)
from p2pdist.process.clock import unix_s
from p2pdist.process.operator_token import token_matches


class FakeJobApi:
    """Ends and starts again on the same port; jobs outlive that, as a tracker's do."""

    def __init__(
        self, secret: bytes, dcs: tuple[str, ...] = ("dc1",), *, prefix: str = "job"
    ) -> None:
        self.secret, self.dcs, self._prefix = secret, dcs, prefix
        self.specs: dict[str, JobSpec] = {}
        self.states: dict[str, JobState] = {}
        self.ready: dict[str, set[str]] = {}
        """Job -> the datacenters that have all of it."""
        self.changed: dict[str, dict[str, Any]] = {}
        """Job -> fields of its status that are told instead of what it would be."""
        self.plan = JobPlan([], None, None)
        self.asked: list[str] = []
        self.no_hosts = False
        self.refusal: tuple[int, str, str] | None = None
        """Status, code, message of every answer to a submission that is no dry run."""
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/api/v1/jobs", self._submit)
        app.router.add_get("/api/v1/jobs", self._list)
        app.router.add_get("/api/v1/jobs/{job}", self._show)
        app.router.add_post("/api/v1/jobs/{job}/{verb}", self._act)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def finish(self, job: str) -> None:
        self.ready[job], self.states[job] = set(self._dcs(job)), "done"

    def change(self, job: str, **fields: Any) -> None:
        self.changed.setdefault(job, {}).update(fields)

    @property
    def digests(self) -> list[str]:
        return [spec.images[0].digest for spec in self.specs.values()]

    # --- requests -------------------------------------------------------------------------------

    async def _submit(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        asked = msgspec.json.decode(await request.read(), type=JobRequest)
        if not any(self._meant(asked.spec)):
            return _error(404, "no_hosts", "this tracker knows no hosts")
        if asked.dry_run:
            return _json(JobAnswer("", self.plan), 200)
        if self.refusal is not None:
            return _error(*self.refusal)
        for job, spec in self.specs.items():
            if spec.key and spec.key == asked.spec.key:
                return _json(JobAnswer(job, self.plan, existing=True), 200)
        job = f"{self._prefix}{len(self.specs) + 1}"
        self.specs[job], self.states[job], self.ready[job] = asked.spec, "running", set()
        return _json(JobAnswer(job, self.plan), 201)

    async def _list(self, request: web.Request) -> web.Response:
        return self._refusal(request) or _json(
            JobList([msgspec.structs.replace(self._status(j), hosts=[]) for j in self.specs]), 200
        )

    async def _show(self, request: web.Request) -> web.Response:
        return self._refusal(request) or self._answer(request.match_info["job"])

    async def _act(self, request: web.Request) -> web.Response:
        if (refusal := self._refusal(request)) is not None:
            return refusal
        job, verb = request.match_info["job"], request.match_info["verb"]
        if job in self.specs:
            self.states[job] = "cancelled" if verb == "cancel" else "running"
            self.changed.get(job, {}).pop("state", None)
        return self._answer(job)

    def _refusal(self, request: web.Request) -> web.Response | None:
        self.asked.append(f"{request.method} {request.path}")
        if token_matches(self.secret, request.headers.get("Authorization", "")):
            return None
        return _error(401, "unauthorized", "no operator token")

    def _answer(self, job: str) -> web.Response:
        if job not in self.specs:
            return _error(404, "not_found", "no such job")
        return _json(self._status(job), 200)

    def _dcs(self, job: str) -> tuple[str, ...]:
        return self._meant(self.specs[job])

    def _meant(self, spec: JobSpec) -> tuple[str, ...]:
        dcs = () if self.no_hosts else self.dcs
        return tuple(dc for dc in dcs if not spec.dcs or dc in spec.dcs)

    def _status(self, job: str) -> JobStatus:
        spec, state, ready = self.specs[job], self.states[job], self.ready[job]
        over_s = unix_s() if state in ("done", "partly", "cancelled") else 0.0
        dcs = [
            DcStatus(dc, 1, int(dc in ready), 0, 0, int(dc not in ready), 1, 0, 0.0, None)
            for dc in self._dcs(job)
        ]
        images = [str(image) for image in spec.images]
        digests = [image.digest for image in spec.images]
        status = JobStatus(
            job,
            state,
            images,
            digests,
            unix_s(),
            unix_s(),
            over_s,
            spec.deadline_unix_s,
            0 < spec.deadline_unix_s < unix_s() and state != "done",
            1,
            spec.waves,
            dcs,
            spec.note,
        )
        return msgspec.structs.replace(status, **self.changed.get(job, {}))


def _json(record: msgspec.Struct, status: int) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(record), status=status, content_type="application/json"
    )


def _error(status: int, code: str, message: str) -> web.Response:
    return _json(JobError(code, message), status)
