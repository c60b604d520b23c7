"""How a command that waits ends on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, Literal, TypeVar

from p2pdist.cli.exit_codes import Exit

T = TypeVar("T")


async def terminable(running: Coroutine[Any, Any, T]) -> T | Literal[Exit.TERMINATED]:
    """SIGTERM, which a pipeline sends when it is cancelled, ends it as Ctrl-C does.

    A second one ends the process at once, whatever it leaves behind.
    """
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        loop.remove_signal_handler(signal.SIGTERM)
        assert task is not None
        task.cancel()

    if threading.current_thread() is threading.main_thread():
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await running
    except asyncio.CancelledError:
        if not terminated:
            raise
        return Exit.TERMINATED


def beyond_recall() -> None:
    """What was asked for is done: a signal that comes now comes too late, and the command says so
    with its exit code. Raises CancelledError where one came before; call it where nothing waits
    any more, in the main task."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if threading.current_thread() is threading.main_thread():
        late = {signal.SIGINT, signal.SIGTERM}
        # asyncio puts the default back first: for a moment a signal would end the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, late)
        loop.remove_signal_handler(signal.SIGTERM)
        for signum in late:
            signal.signal(signum, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, late)
    assert task is not None
    if task.cancelling():
        raise asyncio.CancelledError
