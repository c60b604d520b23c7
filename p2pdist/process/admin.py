"""The admin port of a daemon: health, metrics, status. Loopback unless told otherwise."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Collection, Iterable
from typing import Any, Final

import msgspec
from aiohttp import web

from p2pdist import __version__
from p2pdist.model.members import Address
from p2pdist.model.private_places import parse_ip
from p2pdist.process import audit, logs
from p2pdist.process.http_protocol import dropped_total, malformed_total
from p2pdist.process.listening import HttpServer
from p2pdist.process.metrics import Histogram, Sample, Samples, registry_of, render
from p2pdist.process.tasks import TaskOwner

LAG_PROBE_S: Final = 0.25
LAG_MAX_S: Final = 1.0
METRICS_CACHE_S: Final = 1.0
OTHER_HOST: Final = {"error": "told on this host only"}


class AdminServer:
    """`/livez` says that the loop turns, `/readyz` that the daemon serves; neither asks a tracker
    or an upstream, so that their outage takes no daemon out of service."""

    def __init__(
        self,
        listen: Address,
        *,
        status: Callable[[], dict[str, Any]],
        samples: Samples,
        ready: Callable[[], dict[str, bool]],
        degraded: Callable[[], list[str]] = list,
        durations: Iterable[Histogram] = (),
        routes: Iterable[web.RouteDef] = (),
        names: Collection[str] = (),
        settings: Callable[[], dict[str, Any]] | None = None,
        tls: Callable[[], ssl.SSLContext | None] = lambda: None,
    ) -> None:
        """`ready`: named conditions of readiness, all of which must hold. `degraded`: what works
        less well than it should; the daemon stays in service. `routes`: what else is served here;
        they check who calls, and how much they read, themselves. `names`, `tls`: `HttpServer`'s.
        `settings`: those in force, without secrets; told to who asks from this host."""
        self.draining = False
        self._status = status
        self._ready = ready
        self._degraded = degraded
        self._settings = settings
        self._registry = registry_of(samples, self._own_samples, durations=durations)
        self._lag_s = 0.0
        self._lag_max_s = 0.0
        self._rendered: tuple[float, bytes] = (-METRICS_CACHE_S, b"")
        self._rendering = asyncio.Lock()
        self._tasks = TaskOwner("admin")
        self._refusals = audit.Refusals()
        self._http = HttpServer(listen, self._app(routes), names=names, tls=tls)

    async def start(self) -> Address:
        self._tasks.start(self._probe_lag(), name="loop lag")
        return await self._http.start()

    async def close(self) -> None:
        await self._http.close()
        await self._tasks.close()

    def _app(self, routes: Iterable[web.RouteDef]) -> web.Application:
        app = web.Application(client_max_size=4096)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/healthz", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/version", self._version)
        app.router.add_get("/api/v1/status", self._api_status)
        app.router.add_get("/api/v1/settings", self._api_settings)
        app.router.add_routes(routes)
        return app

    async def _livez(self, request: web.Request) -> web.Response:
        healthy = self._lag_s < LAG_MAX_S
        body = {"alive": healthy, "loop_lag_s": round(self._lag_s, 4)}
        return json_answer(body, 200 if healthy else 503)

    async def _readyz(self, request: web.Request) -> web.Response:
        conditions = {**self._ready(), "not_draining": not self.draining}
        ready = all(conditions.values())
        body = {"ready": ready, "conditions": conditions, "degraded": self._degraded()}
        return json_answer(body, 200 if ready else 503)

    async def _metrics(self, request: web.Request) -> web.Response:
        now_s = asyncio.get_running_loop().time()
        async with self._rendering:
            made_s, body = self._rendered
            if now_s - made_s >= METRICS_CACHE_S:
                body = await asyncio.to_thread(render, self._registry)
                self._rendered = (now_s, body)
        return web.Response(body=body, headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _version(self, request: web.Request) -> web.Response:
        return json_answer({"version": __version__})

    async def _api_status(self, request: web.Request) -> web.Response:
        return json_answer({**self._status(), "draining": self.draining})

    async def _api_settings(self, request: web.Request) -> web.Response:
        """They name accounts and paths: whoever has a shell here may know, and nobody else."""
        if self._settings is None or not from_this_host(request):
            self._refusals.event(
                audit.log, logging.WARNING, "settings.refused", who=audit.NOBODY,
                peer=request.remote or "", reason=OTHER_HOST["error"],
            )  # fmt: skip
            return json_answer(OTHER_HOST, 403)
        return json_answer(self._settings())

    async def _probe_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due_s = loop.time() + LAG_PROBE_S
            await asyncio.sleep(LAG_PROBE_S)
            self._lag_s = max(0.0, loop.time() - due_s)
            self._lag_max_s = max(self._lag_max_s, self._lag_s)

    def _own_samples(self) -> Iterable[Sample]:
        lag, peak = "p2pdist_event_loop_lag_seconds", "p2pdist_event_loop_lag_max_seconds"
        yield Sample(lag, "gauge", "How late the event loop was last.", {}, self._lag_s)
        yield Sample(peak, "gauge", "How late the event loop ever was.", {}, self._lag_max_s)
        dropped, text = "p2pdist_log_lines_dropped_total", "Log lines left out: nobody read them."
        yield Sample(dropped, "counter", text, {}, logs.dropped_total())
        name, text = "p2pdist_http_malformed_total", "Requests that were no HTTP, by reason."
        for reason, count in malformed_total.items():
            yield Sample(name, "counter", text, {"reason": reason}, count)
        name, text = "p2pdist_http_dropped_total", "Connections that were ended, by reason."
        for reason, count in dropped_total.items():
            yield Sample(name, "counter", text, {"reason": reason}, count)


def from_this_host(request: web.Request) -> bool:
    """Who asks has a shell here, or what amounts to that."""
    address = parse_ip(request.remote or "")
    return address is not None and address.is_loopback


def json_answer(body: object, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(body) + b"\n", status=status, content_type="application/json"
    )
