"""How a command that waits ends on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any

from p2pdist.cli.exit_codes import Exit


async def terminable(running: Coroutine[Any, Any, Exit]) -> Exit:
    """SIGTERM, which a pipeline sends when it is cancelled, ends it as Ctrl-C does."""
    task = asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        assert task is not None
        task.cancel()

    if threading.current_thread() is threading.main_thread():
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await running
    except asyncio.CancelledError:
        if not terminated:
            raise
        return Exit.TERMINATED
