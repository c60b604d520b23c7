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
