"""A command that is done is done: a signal at any moment from there on changes nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# The signal comes within `beyond_recall`: right after asyncio has put the default back.
SCRIPT = """
import asyncio, os, signal, sys
from p2pdist.cli.terminating import beyond_recall, terminable

async def work():
    loop = asyncio.get_running_loop()
    remove = loop.remove_signal_handler
    def removed(signum):
        remove(signum)
        os.kill(os.getpid(), int(sys.argv[1]))
    loop.remove_signal_handler = removed
    beyond_recall()
    return "done"

print(asyncio.run(terminable(work())))
"""


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_moment_of_being_done_comes_too_late(signum: signal.Signals) -> None:
    words = [sys.executable, "-c", SCRIPT, str(int(signum))]

    ended = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stdout) == (0, "done\n"), ended.stderr
