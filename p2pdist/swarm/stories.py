"""What the admin port tells of the last blobs in motion, to who asks from the same host.

    GET /api/v1/stories                  which blobs there is something to tell of
    GET /api/v1/stories?digest=PREFIX    all that is kept of the one that begins with that

An answer is at most `TOLD_MAX` motions of `event_log.ENTRIES_MAX` entries: below 4 MB.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

from p2pdist.model.private_digests import SCOPE_BYTES, is_private
from p2pdist.process import clock
from p2pdist.process.admin import OTHER_HOST, from_this_host, json_answer
from p2pdist.swarm.core.event_log import BlobLog, EventLog, Story

PATH: Final = "/api/v1/stories"
TOLD_MAX: Final = 4
_PREFIX: Final = re.compile(r"(?:[a-z0-9]{1,16}:)?[0-9a-f]{1,128}|[a-z0-9]{1,16}:")


class Teller(msgspec.Struct, frozen=True):
    """Who tells it."""

    role: str
    host_id: str
    dc: str


class Known(msgspec.Struct):
    """A blob that there is a story of."""

    digest: str
    size_bytes: int
    age_s: float
    """Since it was taken up last."""
    outcome: str
    wanted: bool
    fetched_bytes: int


class Told(msgspec.Struct):
    """The answer. Times in stories are seconds since their blob was taken up."""

    teller: Teller
    blobs: list[Known] = []
    """Those that were asked for, the newest first."""
    stories: list[Story] = []
    """Of the one blob that was asked for, the newest first."""
    schema_version: int = 1


def handler(
    events: EventLog, teller: Callable[[], Teller]
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """404: nothing is kept of such a blob; 409: several begin like that, and are named."""

    async def handle(request: web.Request) -> web.Response:
        if not from_this_host(request):
            return json_answer(OTHER_HOST, 403)
        prefix = request.query.get("digest", "")
        if prefix and _PREFIX.fullmatch(prefix) is None:
            return json_answer({"error": "not the beginning of a digest"}, 400)
        now_s = asyncio.get_running_loop().time()
        logs = [log for log in events.logs() if _begins(log, prefix)]
        told = Told(teller(), _known(logs, now_s))
        if not prefix:
            return json_answer(told)
        if len(told.blobs) != 1:
            return json_answer(told, 409 if told.blobs else 404)
        told.stories = [_story(log, now_s) for log in logs[:TOLD_MAX]]
        return json_answer(told)

    return handle


def _begins(log: BlobLog, prefix: str) -> bool:
    """With or without the name of its hash. Private ones of a repository begin alike: by what is
    their own they are named as well (`model.private_digests`)."""
    algorithm, _, encoded = log.digest.partition(":")
    names = [log.digest, encoded]
    if is_private(log.digest):
        own = encoded[2 * SCOPE_BYTES :]
        names += [f"{algorithm}:{own}", own]
    return any(name.startswith(prefix) for name in names)


def _known(logs: list[BlobLog], now_s: float) -> list[Known]:
    found: dict[str, Known] = {}
    for log in logs:
        if log.digest not in found:
            found[log.digest] = Known(
                log.digest,
                log.size_bytes,
                age_s=now_s - log.began_s,
                outcome=log.outcome,
                wanted=log.wanted,
                fetched_bytes=log.fetched_bytes,
            )
    return list(found.values())


def _story(log: BlobLog, now_s: float) -> Story:
    story = log.story(now_s)
    story.began_unix_s = clock.unix_s() - story.age_s
    return story
