"""Puts a renewed certificate in place of the one before it, whole whenever the process is killed.

Key and certificate are two files and belong together, so no rename replaces both. The new set is
written to `next.new/`, looked at there, and becomes `next/` by one rename: from then on it is the
set to read, wherever the process ends. Its files are then put in place one by one, and `next/` is
removed. What a kill leaves undone of that is done by the next start.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

from p2pdist.process import failpoints as fail
from p2pdist.process.ca import CA_NAME, CERT_NAME, KEY_NAME
from p2pdist.process.files import sweep_unfinished, sync_directory, write_whole

_NEXT: Final = "next"
_UNFINISHED: Final = "next.new"
_MODES: Final = {CA_NAME: 0o644, KEY_NAME: 0o600, CERT_NAME: 0o644}


def newest_in(directory: Path) -> Path:
    """Return where the set to read lies. Blocking."""
    later = directory / _NEXT
    return later if later.is_dir() else directory


def can_write(directory: Path) -> bool:
    """Whether this process may put a certificate there. Blocking."""
    return os.access(directory, os.W_OK | os.X_OK)


def put_in_place(
    directory: Path, *, ca: bytes | None, cert: bytes, key: bytes, check: Callable[[Path], None]
) -> None:
    """Replace the three files, all PEM; `check` raises for a directory that is no good, and nothing
    is changed then. `ca` None: that file is not touched, whoever writes it. Blocking; raises
    OSError."""
    scratch = directory / _UNFINISHED
    finish(directory)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    try:
        if ca is None:
            (scratch / CA_NAME).symlink_to(Path("..", CA_NAME))
        else:
            write_whole(scratch / CA_NAME, ca, mode=_MODES[CA_NAME])
        for name, data in ((KEY_NAME, key), (CERT_NAME, cert)):
            write_whole(scratch / name, data, mode=_MODES[name])
        check(scratch)
        fail.point("identity.before_next")
        scratch.rename(directory / _NEXT)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    sync_directory(directory)
    finish(directory)


def tidy(directory: Path) -> None:
    """At a start: do what a kill left undone, and clear away what it left unfinished. Blocking;
    raises OSError.

    Later on somebody else may be writing there: `ca issue`, with the files that this would take for
    our own.
    """
    if (directory / _NEXT).is_dir():
        finish(directory)
        with contextlib.suppress(OSError):
            sweep_unfinished(directory)


def finish(directory: Path) -> None:
    """Do what a kill left undone; nothing where there is nothing. Blocking; raises OSError."""
    later = directory / _NEXT
    if not later.is_dir():
        return
    for name, mode in _MODES.items():
        fail.point("identity.before_file")
        if (later / name).is_symlink():  # to what is in its place
            continue
        write_whole(directory / name, (later / name).read_bytes(), mode=mode)
    fail.point("identity.before_removal")
    # Under another name first: half a directory is no set to read.
    shutil.rmtree(directory / _UNFINISHED, ignore_errors=True)
    later.rename(directory / _UNFINISHED)
    shutil.rmtree(directory / _UNFINISHED, ignore_errors=True)
