"""Reads long answers in a thread: whoever may name a repository chooses what its registry sends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

# The worst 64 KiB take 2 ms. Of 4 MiB, a tag list takes 120 ms here and makes the loop 24 ms late
# from a thread (decoding holds the interpreter); a manifest takes up to 11 ms.
OFF_LOOP_BYTES: Final = 64 * 1024


async def parsed(parse: Callable[[bytes], T], body: bytes) -> T:
    """Return `parse(body)`; the loop goes on while a long body is read."""
    if len(body) < OFF_LOOP_BYTES:
        return parse(body)
    return await asyncio.to_thread(parse, body)
