"""Types a line into a shell at a terminal, key by key as a person does, and runs it."""

from __future__ import annotations

import os
import pty
import subprocess
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

SCRIPTS: Final = sysconfig.get_path("scripts")
READY: Final = "READY>"
# Printed by what the line runs, and by nothing that is typed.
BEGIN, BETWEEN, END = "\x02", "\x1e", "\x03"
SHOW: Final = r"""p2pdist() { printf '\002'; printf '%s\036' "$@"; printf '\003'; }"""
PATIENCE_S: Final = 30.0

BASHRC: Final = f"""
eval "$(command p2pdist completion bash)"
{SHOW}
PS1='{READY}'
"""
ZSHRC: Final = f"""
autoload -U compinit && compinit -u -D
eval "$(command p2pdist completion zsh)"
{SHOW}
PS1='{READY}'
"""


def arguments_in_bash(line: str, directory: Path) -> list[str]:
    """What `p2pdist` is called with when `line`, with its tabs, is typed in `directory`."""
    rc = directory / ".rc"
    rc.write_text(BASHRC)
    return _typed(["bash", "--noprofile", "--rcfile", str(rc), "-i"], line, directory)


def arguments_in_zsh(line: str, directory: Path) -> list[str]:
    (directory / ".zshrc").write_text(ZSHRC)
    return _typed(["zsh", "-d", "-i"], line, directory)


def _typed(argv: Sequence[str], line: str, directory: Path) -> list[str]:
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "PATH": f"{SCRIPTS}:{os.environ['PATH']}",
        "ZDOTDIR": str(directory),
        "TERM": "dumb",
    }
    shell = subprocess.Popen(
        argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=directory,
        start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        _read_until(ours, READY)
        os.write(ours, f"{line}\n".encode())
        said = _read_until(ours, END)
    finally:
        shell.kill()
        shell.wait()
        os.close(ours)
    return said.rpartition(BEGIN)[2].removesuffix(BETWEEN).split(BETWEEN)


def _read_until(terminal: int, mark: str) -> str:
    said, until_s = "", time.monotonic() + PATIENCE_S
    os.set_blocking(terminal, False)
    while mark not in said:
        assert time.monotonic() < until_s, f"no {mark!r} in {said!r}"
        try:
            said += os.read(terminal, 1 << 16).decode(errors="replace")
        except BlockingIOError:
            time.sleep(0.01)
    return said.partition(mark)[0]
