"""Files that a thread opens for a task."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import IO

import pytest

from p2pdist.process import opening


async def test_a_file_is_open_for_the_block(tmp_path: Path) -> None:
    async with opening.opened(tmp_path / "f", "xb") as file:
        file.write(b"x")
    assert file.closed
    async with opening.opened(tmp_path / "f", "rb") as again:
        assert again.read() == b"x"
    with pytest.raises(FileExistsError):
        async with opening.opened(tmp_path / "f", "xb+"):
            pass


@pytest.mark.parametrize("there", [True, False])
async def test_what_opens_after_the_task_was_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    if there:
        (tmp_path / "f").touch()
    began, go_on, files = threading.Event(), threading.Event(), []

    def slow_open(path: Path | bytes, mode: str) -> IO[bytes]:
        began.set()
        assert go_on.wait(10)
        files.append(Path(path).open(mode))  # type: ignore[arg-type]  # a mode of open  # noqa: SIM115
        return files[0]

    monkeypatch.setattr(opening, "_open", slow_open)

    async def use() -> None:
        async with opening.opened(tmp_path / "f", "rb"):
            raise AssertionError("it was cancelled before")

    task = asyncio.create_task(use())  # noqa: TID251
    await asyncio.to_thread(began.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    async with asyncio.timeout(10):
        while there and not (files and files[0].closed):  # noqa: ASYNC110  # a thread does it
            await asyncio.sleep(0.01)
