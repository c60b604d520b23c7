from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.swarm import links_file
from p2pdist.swarm.core.links import LinkRecord, Links

NAME = ImageName("docker.io", "library/app")
DIGEST = digest_of(b"a layer")


def some_links() -> Links:
    links = Links()
    links.tell(NAME, DIGEST, 7, media_type="application/octet-stream")
    return links


async def test_links_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "links"
    await links_file.save(some_links(), path)
    restored = Links()

    count = await links_file.load(restored, path)

    assert count == 1
    assert restored.allowed(NAME, DIGEST)
    assert restored.claim(NAME, DIGEST) == 7


async def test_without_a_file_nothing_is_known(tmp_path: Path) -> None:
    assert await links_file.load(Links(), tmp_path / "links") == 0


@pytest.mark.parametrize("cut", [0, 1, 10, -1])
async def test_a_damaged_file_counts_for_nothing(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "links"
    await links_file.save(some_links(), path)
    path.write_bytes(path.read_bytes()[:cut])
    links = Links()

    assert await links_file.load(links, path) == 0
    assert len(links) == 0


async def test_a_directory_that_is_gone_raises_nothing(tmp_path: Path) -> None:
    await links_file.save(some_links(), tmp_path / "gone" / "links")


async def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    elsewhere, path = tmp_path / "elsewhere", tmp_path / "links"
    await links_file.save(some_links(), elsewhere)
    before = elsewhere.read_bytes()
    path.symlink_to(elsewhere)

    assert await links_file.load(Links(), path) == 0
    await links_file.save(Links(), path)

    assert elsewhere.read_bytes() == before
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.EMFILE, errno.ESTALE])
async def test_a_file_that_the_disk_does_not_give_stops_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    path = tmp_path / "links"
    await links_file.save(some_links(), path)

    def refuse(*_: object) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr(os, "open", refuse)

    assert await links_file.load(Links(), path) == 0


async def test_a_disk_that_takes_nothing_raises_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "read-only file system")

    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)

    await links_file.save(some_links(), tmp_path / "links")


async def test_a_long_list_is_made_in_many_turns_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    links, turn = Links(), 0
    in_turn: Counter[int] = Counter()
    for i in range(4 * links_file.SLICE):
        links.tell(NAME, digest_of(b"%d" % i), i)
    records = list(links.records())

    def listed() -> Iterator[LinkRecord]:
        for record in records:
            in_turn[turn] += 1
            yield record

    async def count() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(links, "records", listed)
    async with asyncio.TaskGroup() as tasks:
        counting = tasks.create_task(count())
        await links_file.save(links, tmp_path / "links")
        counting.cancel()

    assert max(in_turn.values()) == links_file.SLICE
    assert await links_file.load(Links(), tmp_path / "links") == len(records)
