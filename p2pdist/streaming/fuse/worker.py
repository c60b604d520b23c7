"""What a worker does with the descriptor that its holder gave it."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from typing import Final

from p2pdist.process.logs import event
from p2pdist.streaming.fuse import holder
from p2pdist.streaming.fuse.session import CannotTakeOver, Session, SessionOptions
from p2pdist.streaming.ports import FileTree

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG: Final = 1


def serve(tree: FileTree, options: SessionOptions | None = None) -> None:
    """Answer from `tree` until the file system is unmounted; call it from the main thread.

    The worker ends with its holder, which then is the end of the mount: its readers get an error,
    where they would otherwise hang with the next death of a worker that nobody starts again.
    """
    _end_with(int(os.environ[holder.HOLDER_VARIABLE]))
    takeover = os.environ[holder.TAKEOVER_VARIABLE] == "1"
    fd = int(os.environ[holder.FD_VARIABLE])
    os.set_inheritable(fd, False)  # the connection must not live on in a child of ours
    session = Session(fd, tree, options)
    try:
        session.serve(takeover=takeover)
    except CannotTakeOver as error:
        event(_log, logging.ERROR, "fuse.takeover_impossible", why=str(error))
        sys.exit(holder.NO_TAKEOVER)


def _end_with(holder_pid: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != holder_pid:
        sys.exit("the holder of this mount has ended")
