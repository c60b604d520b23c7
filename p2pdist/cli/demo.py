"""`p2pdist demo`."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click

from p2pdist.cli.exit_codes import Exit


@click.command()
@click.option("--keep", is_flag=True, help="Leave it running and say what to try.")
@click.option(
    "--size-mb", type=click.IntRange(10, 4000), default=200, show_default=True, help="Image size."
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("build/demo.json"),
    show_default=True,
    help="Where to write the results.",
)
def demo(keep: bool, size_mb: int, json_path: Path) -> int:
    """Show two datacenters on this machine.

    An embedded registry with a realistic image, a tracker and a proxy in each of two
    datacenters and six peers, all as separate processes on loopback. All six hosts pull at once;
    the table says where each one's bytes came from. Ends with 1 if a target is short.
    """
    from p2pdist.demo.run import DemoOptions, run_demo

    async def cleanly() -> bool:
        """A SIGTERM cancels, so that daemons and files go as they do after Ctrl-C."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await run_demo(DemoOptions(size_mb * 1_000_000, keep, json_path))

    try:
        met = asyncio.run(cleanly())
    except asyncio.CancelledError:
        return Exit.TERMINATED
    return Exit.DONE if met else Exit.UNEXPECTED
