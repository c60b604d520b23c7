"""Daemons as separate processes: started, waited for, always ended."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from p2pdist.errors import P2pdistError

READY_S: Final = 30.0
POLL_S: Final = 0.05
END_S: Final = 5.0
LOG_TAIL_LINES: Final = 15
_PR_SET_PDEATHSIG: Final = 1


def free_ports(count: int) -> list[int]:
    """Ports that are free now; all are held open until the last one was found."""
    socks = [socket.socket() for _ in range(count)]
    try:
        for sock in socks:
            sock.bind(("127.0.0.1", 0))
        return [sock.getsockname()[1] for sock in socks]
    finally:
        for sock in socks:
            sock.close()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(slots=True)
class Process:
    name: str
    process: asyncio.subprocess.Process
    log_path: Path
    url: str
    health_url: str

    @classmethod
    async def start(
        cls, name: str, module: str, args: list[str], log_path: Path, url: str, health_url: str
    ) -> Process:
        """Run `python -m module args`, which its users call at `url`; `health_url` answers 200 once
        it is ready."""
        with log_path.open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *args,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
                env=_environment(),
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log_path, url, health_url)

    async def wait_ready(self, session: aiohttp.ClientSession) -> None:
        """Return when it answers; raise P2pdistError with the end of its log if it does not."""
        deadline_s = asyncio.get_running_loop().time() + READY_S
        while asyncio.get_running_loop().time() < deadline_s:
            if self.process.returncode is not None:
                break
            try:
                async with session.get(self.health_url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_S)
        tail = self.log_path.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        raise P2pdistError(f"{self.name} did not become ready:\n" + "\n".join(tail))

    async def end(self) -> None:
        if self.process.returncode is None:
            self.process.terminate()
            try:
                async with asyncio.timeout(END_S):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


async def fetch_json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url, raise_for_status=True) as answer:
        body: dict[str, Any] = await answer.json()
        return body


def _environment() -> dict[str, str]:
    """Ours without settings in variables, which would reach every daemon alike."""
    return {k: v for k, v in os.environ.items() if not k.startswith("P2PDIST_")}
