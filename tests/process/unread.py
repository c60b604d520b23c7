"""A daemon that logs on demand, for tests of a stderr that nobody reads: a process of its own.

`GET /log?lines=N` logs that many lines of 1 kB; `/print` prints one. The first line of stdout is
the admin port.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from aiohttp import web

from p2pdist.model.members import Address
from p2pdist.process import logs
from p2pdist.process.admin import AdminServer
from p2pdist.process.daemon import run_daemon

log = logging.getLogger(__name__)
FILLER = "x" * 900


async def _log(request: web.Request) -> web.Response:
    for number in range(int(request.query["lines"])):
        logs.event(log, logging.WARNING, "test.line", number=number, filler=FILLER)
    return web.Response()


async def _print(request: web.Request) -> web.Response:
    print("printed", file=sys.stderr)
    return web.Response()


async def main(stop: asyncio.Event) -> None:
    routes = [web.get("/log", _log), web.get("/print", _print)]
    admin = AdminServer(
        Address("127.0.0.1", 0), status=dict, samples=list, ready=dict, routes=routes
    )
    bound = await admin.start()
    print(bound.port, flush=True)
    await stop.wait()
    logs.event(log, logging.WARNING, "test.last")
    await admin.close()


if __name__ == "__main__":
    logs.set_up("info", "json")
    run_daemon(main)
