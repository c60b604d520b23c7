from __future__ import annotations

from pathlib import Path

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy import links_file
from p2pdist.registry_proxy.core.links import Links

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


async def test_a_snapshot_that_a_kill_cut_is_swept(tmp_path: Path) -> None:
    left = tmp_path / "links.0a1b2c3d.new"
    left.write_bytes(b"half")

    await links_file.load(Links(), tmp_path / "links")

    assert not left.exists()
