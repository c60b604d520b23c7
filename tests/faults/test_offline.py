"""The offline checker finds what is wrong: a checker that sees nothing would pass every fault."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from p2pdist.model.ids import TagKey, digest_of
from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from tests.faults.offline import Findings, inspect
from tests.store.content import SIGNER, chunk_of, hash_of, keyring, map_of, random_blob

DATA: Final = random_blob(3)
SMALL: Final = b"small"


@pytest.fixture
async def state_dir(tmp_path: Path) -> Path:
    """A whole blob, a small one and a statement, left behind by a store that was closed."""
    limits = StoreLimits(1 << 30, reserve_free_bytes=0)
    store = await Store.open(tmp_path / "store", limits=limits, keyring=keyring(), boot_id="boot")
    blob = await store.create(map_of(DATA))
    for chunk in blob.geometry.indexes():
        assert await blob.admit(chunk, chunk_of(DATA, chunk), hash_of(DATA, chunk))
    await store.put_small(digest_of(SMALL), SMALL, "text/plain")
    await store.put_statement(TagKey(bytes(32)), b"record")
    await store.close()
    return tmp_path


def inspected(state_dir: Path) -> Findings:
    return inspect(state_dir, [SIGNER.public_key_bytes])


def only(state_dir: Path, pattern: str) -> Path:
    (path,) = (state_dir / "store").glob(pattern)
    return path


def test_nothing_is_wrong_with_what_a_store_wrote(state_dir: Path) -> None:
    found = inspected(state_dir)

    assert found == Findings(verified_chunks=3, whole_blobs=[digest_of(DATA), digest_of(SMALL)])


def test_a_flipped_bit_is_found_with_its_chunk(state_dir: Path) -> None:
    path = only(state_dir, "blobs/*/*/*/data")
    data = bytearray(path.read_bytes())
    data[300_000] ^= 1
    path.write_bytes(data)

    name = path.parent.name[:12]
    assert inspected(state_dir).wrong == [f"{name}: chunk 1", f"{name}: digest of the whole"]


def test_a_torn_small_blob_is_found(state_dir: Path) -> None:
    path = only(state_dir, "small/*/*/*")
    path.write_bytes(path.read_bytes()[:-1])

    assert inspected(state_dir).wrong == [f"small {path.name[:12]}"]


def test_a_map_of_an_unknown_key_is_found(state_dir: Path) -> None:
    found = inspect(state_dir, [bytes(32)])

    assert len(found.wrong) == 1


def test_without_bits_nothing_is_claimed(state_dir: Path) -> None:
    only(state_dir, "blobs/*/*/*/bits").unlink()

    found = inspected(state_dir)

    assert (found.verified_chunks, found.wrong) == (0, [])


@pytest.mark.parametrize(
    "name", ["revocations.0a1b2c3d.new", "blobs/map.new", "statements/x.new", "small/gone"]
)
def test_a_left_over_file_is_an_orphan(state_dir: Path, name: str) -> None:
    (state_dir / "store" / name).write_bytes(b"half")

    assert inspected(state_dir).orphans == [f"store/{name}"]
