"""The file of what replication rules brought where."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from p2pdist.errors import StoreError
from p2pdist.registry_proxy.replication_store import sqlite_replication_store


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "replicas.db").symlink_to(tmp_path / "victim")
    store = sqlite_replication_store(tmp_path / "state" / "replicas.db")

    with pytest.raises(StoreError, match="no place for a database"):
        asyncio.run(store.open())
    asyncio.run(store.close())

    assert not os.path.lexists(tmp_path / "victim")
