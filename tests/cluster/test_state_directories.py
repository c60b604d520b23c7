"""Whose the state of a daemon is: ours alone, or there is no start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from p2pdist.errors import ConfigError
from tests.fakes.cluster import Lab, open_lab

START: dict[str, Callable[[Lab], Awaitable[object]]] = {
    "tracker": lambda lab: lab.tracker("host"),
    "proxy": lambda lab: lab.proxy("host"),
    "peer": lambda lab: lab.peer("host"),
}


@pytest.mark.parametrize("role", START)
@pytest.mark.parametrize("how", ["may be written by others", "symbolic links"])
async def test_no_daemon_starts_on_a_directory_of_others(
    tmp_path: Path, role: str, how: str
) -> None:
    """Who writes there says who may have which digest, and what a root daemon overwrites."""
    async with open_lab(tmp_path, {}) as lab:
        directory = lab.settings("host").host.state_dir / role
        directory.parent.mkdir(parents=True, exist_ok=True)
        if how == "symbolic links":
            (tmp_path / "elsewhere").mkdir()
            directory.symlink_to(tmp_path / "elsewhere")
        else:
            directory.mkdir()
            directory.chmod(0o777)

        with pytest.raises(ConfigError, match=how):
            await START[role](lab)
        assert not list(directory.iterdir())


@pytest.mark.parametrize("role", START)
async def test_a_start_clears_away_what_was_not_finished(tmp_path: Path, role: str) -> None:
    async with open_lab(tmp_path, {}) as lab:
        directory = lab.settings("host").host.state_dir / role
        directory.mkdir(mode=0o700, parents=True)
        (directory / "some.0123abcd.new").write_bytes(b"half")

        await START[role](lab)
        assert directory.stat().st_mode & 0o777 == 0o700
        assert not list(directory.glob("*.new"))
