from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from p2pdist.store.ports import StoreLimits
from p2pdist.store.store import Store
from tests.store.content import keyring

OpenStore = Callable[..., Awaitable[Store]]


@pytest.fixture
async def open_store(tmp_path: Path) -> AsyncIterator[OpenStore]:
    """Opens the store at `tmp_path/store`; closes what the test leaves open."""
    async with AsyncExitStack() as stack:

        async def opened(*, max_bytes: int = 1 << 30, boot_id: str = "boot") -> Store:
            store = await Store.open(
                tmp_path / "store",
                limits=StoreLimits(max_bytes, reserve_free_bytes=0),
                keyring=keyring(),
                boot_id=boot_id,
            )
            stack.push_async_callback(store.close)
            return store

        yield opened
