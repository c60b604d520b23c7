"""What a daemon tells systemd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist.process.daemon import _until_stopped, notify


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The socket that systemd listens on."""
    name = str(tmp_path / "notify") if request.param == "path" else f"\0p2pdist-{os.getpid()}"
    monkeypatch.setenv("NOTIFY_SOCKET", name.replace("\0", "@"))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(name)
    sock.settimeout(5)
    yield sock
    sock.close()


def test_readiness_is_told(manager: socket.socket) -> None:
    notify("READY=1")

    assert manager.recv(100) == b"READY=1"


async def test_the_watchdog_is_fed_while_the_loop_turns(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    fed = []

    async def main(stop: asyncio.Event) -> None:
        for _ in range(3):
            fed.append(await asyncio.to_thread(manager.recv, 100))

    await _until_stopped(main)

    assert fed == [b"WATCHDOG=1"] * 3


async def test_another_process_watchdog_is_left_alone(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setenv("WATCHDOG_PID", "1")

    async def main(stop: asyncio.Event) -> None: ...

    await _until_stopped(main)
    notify("STOPPING=1")

    assert manager.recv(100) == b"STOPPING=1"


def test_without_a_manager_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    notify("READY=1")


def test_a_manager_that_does_not_read_holds_up_nobody(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"WATCHDOG=1", manager.getsockname())

    notify("WATCHDOG=1")

    assert [record.message for record in caplog.records] == ["systemd.unreachable"]
