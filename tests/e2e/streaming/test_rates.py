"""How fast a mount is, cold and warm: printed, and held to a fraction that any machine reaches."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.streaming import trees
from tests.e2e.streaming.conftest import MountTree

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

SCAN_ENTRIES_PER_S_MIN: Final = 4_000
SEQUENTIAL_BYTES_PER_S_MIN: Final = 20_000_000
HOLDER_KB_MAX: Final = 30_000
PIECE_BYTES: Final = 1 << 20


def test_a_file_in_sequence(mount_tree: MountTree) -> None:
    path = mount_tree("many_files").path / "sequential"

    cold_s, cold = _hashed(path)
    warm_s, warm = _hashed(path)

    expected = hashlib.sha256()
    for offset in range(0, trees.SEQUENTIAL_BYTES, PIECE_BYTES):
        expected.update(trees.block(offset, PIECE_BYTES))
    assert cold == warm == expected.hexdigest()
    for name, took_s in (("cold", cold_s), ("from the page cache", warm_s)):
        print(f"sequential read {name}: {trees.SEQUENTIAL_BYTES / took_s / 1e6:.0f} MB/s")
    assert trees.SEQUENTIAL_BYTES / cold_s > SEQUENTIAL_BYTES_PER_S_MIN


@pytest.mark.parametrize("wanted", [[], ["-newermt", "2001-01-01"]], ids=["names", "attributes"])
def test_a_scan_of_all_files(mount_tree: MountTree, wanted: list[str]) -> None:
    root = mount_tree("many_files").path
    began_s = time.monotonic()

    found = subprocess.run(["find", root, "-print0", *wanted], stdout=subprocess.PIPE, check=True)

    rate = found.stdout.count(b"\0") / (time.monotonic() - began_s)
    entries = trees.SMALL_FILES + trees.SMALL_FILES // 100 + 2  # and the large one, and the root
    assert found.stdout.count(b"\0") == entries
    print(f"find {' '.join(wanted)}, cold: {rate:.0f} entries/s")
    assert rate > SCAN_ENTRIES_PER_S_MIN


def test_opening_and_reading_small_files(mount_tree: MountTree) -> None:
    root = mount_tree("many_files").path
    paths = [root / f"d{n - n % 100}" / f"f{n}" for n in range(trees.SMALL_FILES)]

    for name, visit in (("open + close", _open), ("open + read + close", _read)):
        for kind in ("cold", "warm"):
            began_s = time.monotonic()
            for path in paths:
                visit(path)
            each_us = (time.monotonic() - began_s) / len(paths) * 1e6
            print(f"{name}, {kind}: {each_us:.1f} us a file")
    assert _read(paths[-1]) == trees.small_file(trees.SMALL_FILES - 1)


def test_the_holder_is_small(mount_tree: MountTree) -> None:
    status = Path(f"/proc/{mount_tree('many_files').holder_pid}/status").read_text()

    resident_kb = int(status.partition("VmRSS:")[2].split()[0])
    print(f"holder: {resident_kb / 1000:.1f} MB resident")
    assert resident_kb < HOLDER_KB_MAX


def _open(path: Path) -> None:
    os.close(os.open(path, os.O_RDONLY))


def _read(path: Path) -> bytes:
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.read(fd, PIECE_BYTES)
    finally:
        os.close(fd)


def _hashed(path: Path) -> tuple[float, str]:
    """Seconds of reading alone, and the SHA-256."""
    digest, reading_s = hashlib.sha256(), 0.0
    buffer = bytearray(PIECE_BYTES)
    with open(path, "rb", buffering=0) as file:
        while True:
            began_s = time.monotonic()
            count = file.readinto(buffer)
            reading_s += time.monotonic() - began_s
            if not count:
                return reading_s, digest.hexdigest()
            digest.update(memoryview(buffer)[:count])
