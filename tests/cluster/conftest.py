"""A registry with an image behind a lab of real daemons in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from p2pdist.settings import Upstream
from tests.fakes.cluster import Lab, open_lab
from tests.fakes.registry import FakeRegistry, TokenAuth


def account_at(host: str, registry: FakeRegistry, account: TokenAuth, directory: Path) -> Upstream:
    """A registry that is read with an account, for everybody."""
    password_file = directory / "password"
    password_file.write_text(account.password)
    password_file.chmod(0o600)
    return Upstream(
        host,
        registry.url,
        access="shared",
        username=account.username,
        password_file=password_file,
    )


@pytest.fixture
async def registry() -> AsyncIterator[FakeRegistry]:
    async with FakeRegistry() as registry:
        yield registry


@pytest.fixture
async def lab(registry: FakeRegistry, tmp_path: Path) -> AsyncIterator[Lab]:
    async with open_lab(tmp_path, {"docker.io": registry.url}) as lab:
        yield lab


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(auto_decompress=False, connector=connector) as session:
        yield session
