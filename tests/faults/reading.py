"""One GET of a blob as a client does it, with its silences; and what stores must hold after it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from p2pdist.process.identity import proxy_keys
from tests.fakes.cluster import Lab
from tests.faults.offline import inspect
from tests.faults.records import FaultRecord

SILENCE_MAX_S = 5.0
"""Registry contract 3.7: no silent gap above 5 s where another source exists."""


@dataclass(frozen=True, slots=True)
class Reading:
    body: bytes
    first_byte_s: float
    longest_gap_s: float
    seconds: float

    def held_to(self, record: FaultRecord, silence_s: float = SILENCE_MAX_S) -> None:
        """Put the longest silence of this reading on the record."""
        record.took("longest silence", self.longest_gap_s, at_most_s=silence_s)


async def read_in_one_get(client: aiohttp.ClientSession, base: str, digest: str) -> Reading:
    """Read a blob of `library/app`; raise ClientError for a refused or short body."""
    loop = asyncio.get_running_loop()
    began_s = last_s = loop.time()
    gaps, parts = [], []
    url = f"{base}/v2/library/app/blobs/{digest}"
    async with client.get(url, raise_for_status=True) as answer:
        async for data in answer.content.iter_any():
            now_s = loop.time()
            gaps.append(now_s - last_s)
            last_s = now_s
            parts.append(data)
    return Reading(b"".join(parts), gaps[0], max(gaps), last_s - began_s)


def check_stores(lab: Lab, roles: Sequence[str] = ("peer", "proxy")) -> int:
    """I1 and I3: all that is claimed is true, no file is left over; return the chunks hashed."""
    keys = proxy_keys(lab.settings("anybody"))
    hashed = 0
    for directory in _state_dirs(lab.directory, roles):
        found = inspect(directory, keys)
        assert found.wrong == [], f"{directory}: {found.wrong}"
        assert found.orphans == [], f"{directory}: {found.orphans}"
        hashed += found.verified_chunks
    return hashed


def _state_dirs(directory: Path, roles: Sequence[str]) -> list[Path]:
    return [path for role in roles for path in directory.glob(f"*/{role}")]


def longest_of(readings: Sequence[Any]) -> float:
    return max(float(reading.longest_gap_s) for reading in readings)
