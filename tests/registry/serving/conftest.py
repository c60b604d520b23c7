from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.registry.serving.registry_lab import RegistryLab, registry_lab


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[RegistryLab]:
    async with registry_lab(tmp_path) as lab:
        yield lab
