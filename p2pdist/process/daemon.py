"""What every daemon does around its work: signals, descriptors, the loop, a word to systemd."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Final

import uvloop

from p2pdist.process import failpoints, logs

log = logging.getLogger(__name__)

# A systemd that does not read its socket must not hold up the loop.
NOTIFY_S: Final = 0.1

Main = Callable[[asyncio.Event], Awaitable[None]]


def run_daemon(main: Main, *, on_uvloop: bool = False) -> None:
    """Run `main` until SIGTERM or SIGINT sets its event; a second signal ends the process at once.

    uvloop is for daemons of many small messages; senders of files need the stock loop, which has
    sendfile (3 to 6 times less CPU).
    """
    failpoints.announce()
    raise_descriptor_limit()
    factory = uvloop.new_event_loop if on_uvloop else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(_until_stopped(main))


async def _until_stopped(main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_loop_error)

    def on_signal(name: str) -> None:
        if stop.is_set():
            logs.event(log, logging.WARNING, "daemon.killed", signal=name)
            logs.flush()
            os._exit(130 if name == "SIGINT" else 143)
        logs.event(log, logging.INFO, "daemon.draining", signal=name)
        notify("STOPPING=1")
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number.name)
    watchdog = _feed_watchdog(loop)
    try:
        await main(stop)
    finally:
        watchdog()


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what nobody caught without the objects around it: an HTTP answer shows its address and
    headers, a callback its arguments, and both may hold credentials."""
    what = "a callback failed" if "handle" in context else context["message"]
    logs.event(log, logging.ERROR, "loop.error", what=what, exc_info=context.get("exception"))


def _feed_watchdog(loop: asyncio.AbstractEventLoop) -> Callable[[], None]:
    """Tell systemd twice per `WatchdogSec` that the loop turns; the result ends that."""
    try:
        every_s = int(os.environ.get("WATCHDOG_USEC", "0")) / 2e6
    except ValueError:
        every_s = 0.0
    if every_s <= 0 or os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return lambda: None
    handle = loop.call_soon(lambda: None)

    def feed() -> None:
        nonlocal handle
        notify("WATCHDOG=1")
        handle = loop.call_later(every_s, feed)

    feed()
    return lambda: handle.cancel()


def raise_descriptor_limit() -> None:
    """Take as many descriptors as the host allows: a link and a body cost one each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def notify(state: str) -> None:
    """Tell systemd how we are (`sd_notify`), if it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.settimeout(NOTIFY_S)
        try:
            sock.connect("\0" + path[1:] if path.startswith("@") else path)
            sock.sendall(state.encode())
        except OSError as error:
            logs.event(log, logging.WARNING, "systemd.unreachable", error=str(error))
