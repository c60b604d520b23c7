"""A registry with a lab of real daemons in this process, and an eye on descriptors (I4)."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest

from tests.cluster.conftest import client, lab, registry

__all__ = ["client", "lab", "registry"]

# The event loop's own, and what a library keeps once it was used.
DESCRIPTORS_KEPT_MAX = 4


@pytest.fixture(autouse=True)
def _no_leaked_descriptors() -> Iterator[None]:
    """Set up before the lab and looked at after it has ended."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    gc.collect()
    after = len(os.listdir("/proc/self/fd"))
    assert after <= before + DESCRIPTORS_KEPT_MAX, f"{after - before} descriptors leaked"
