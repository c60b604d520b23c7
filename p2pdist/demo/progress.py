"""Live progress of the six hosts: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from p2pdist.demo.host import HostPull

BARS_S: Final = 0.1
LINES_S: Final = 2.0


@asynccontextmanager
async def showing_progress(pulls: Sequence[HostPull]) -> AsyncIterator[None]:
    """Show how far each host is, for as long as the block lasts."""
    show = _show_bars if sys.stderr.isatty() else _show_lines
    async with asyncio.TaskGroup() as shown:
        task = shown.create_task(show(pulls), name="progress")
        try:
            yield
        finally:
            task.cancel()


async def _show_lines(pulls: Sequence[HostPull]) -> None:
    while True:
        await asyncio.sleep(LINES_S)
        parts = [f"{p.peer.name} {100 * p.got_bytes // p.total_bytes}%" for p in pulls]
        print("  " + "  ".join(parts), file=sys.stderr, flush=True)


async def _show_bars(pulls: Sequence[HostPull]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        rows = [progress.add_task(p.peer.name, total=p.total_bytes) for p in pulls]
        try:
            while True:
                await asyncio.sleep(BARS_S)
                for row, pull in zip(rows, pulls, strict=True):
                    progress.update(row, completed=pull.got_bytes)
        finally:
            for row, pull in zip(rows, pulls, strict=True):
                progress.update(row, completed=pull.got_bytes)
