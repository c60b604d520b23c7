"""Asks the daemons of this host for the stories of blobs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Final

import aiohttp
import msgspec

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.swarm.stories import PATH, Told

TIMEOUT_S: Final = 3.0
ANSWER_BYTES_MAX: Final = 8 << 20
# Shorter ones are more likely the name of an image.
_DIGEST: Final = re.compile(r"(?:sha256|sha512|private):[0-9a-f]{0,128}|[0-9a-f]{6,128}")


async def digests_of(text: str, endpoint: str, platform_text: str | None) -> list[str]:
    """The beginnings of digests that `text` means: itself, or the layers of the image that it
    names. Raises CommandError."""
    if _DIGEST.fullmatch(text):
        return [text]
    from p2pdist.cli.platforms import platform_of
    from p2pdist.cli.pulling.client import SILENCE_S, PullClient
    from p2pdist.cli.pulling.progress import progress_for
    from p2pdist.cli.pulling.workspace import workspace
    from p2pdist.oci.reference import parse_reference

    try:
        reference, platform = parse_reference(text), platform_of(platform_text)
    except ValueError as error:
        hint = "see `p2pdist debug story --help`"
        raise CommandError(f"no digest, and no image: {error}", Exit.USAGE, hint) from None
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=SILENCE_S)
    with workspace(None) as directory:
        async with aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session:
            client = PullClient(session, endpoint, progress_for("plain", quiet=True))
            image = await client.resolve(reference, platform, directory)
    return list(dict.fromkeys(layer.digest for layer in image.info.layers))


async def all_told(places: Sequence[str], wanted: Sequence[str]) -> list[Told]:
    """What each daemon tells of each blob of `wanted` ("": of all), in this order; at least one.

    Raises CommandError.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        asked = [_ask(session, place, digest) for digest in wanted for place in places]
        answers = [each for each in await asyncio.gather(*asked) if each is not None]
    if not answers:
        shown = ", ".join(place.removeprefix("http://") for place in places)
        hint = "start one (`p2pdist peer`), or name its admin address with --admin"
        raise CommandError(f"no daemon tells stories at {shown}", Exit.UPSTREAM, hint)
    told = [each for each in answers if each.stories or (each.blobs and wanted == [""])]
    if not told:
        raise _unknown(answers, wanted)
    return told


def _unknown(answers: Sequence[Told], wanted: Sequence[str]) -> CommandError:
    if several := sorted({blob.digest for each in answers for blob in each.blobs}):
        names = "\n".join(several)
        return CommandError(f"several blobs begin like that:\n{names}", Exit.USAGE, "name one")
    if wanted == [""]:
        return CommandError("no blob was in motion since the daemon started", Exit.NOT_FOUND)
    what = wanted[0] if len(wanted) == 1 else f"any of the {len(wanted)} layers"
    return CommandError(
        f"no daemon of this host remembers {what}",
        Exit.NOT_FOUND,
        "`p2pdist debug story` lists what is remembered: the last 64 blobs since the start, and "
        "none of one chunk",
    )


async def _ask(session: aiohttp.ClientSession, place: str, digest: str) -> Told | None:
    """None: nobody is there, or no daemon that has stories. Raises CommandError."""
    url = f"{place.rstrip('/')}{PATH}"
    try:
        async with session.get(url, params={"digest": digest} if digest else {}) as answer:
            if answer.status == 403:
                hint = "run it there, as in `kubectl exec` or `ssh`"
                raise CommandError(f"{place} tells its own host only", Exit.DENIED, hint)
            if answer.status not in (200, 404, 409):
                return None
            body = await answer.content.read(ANSWER_BYTES_MAX + 1)
            while not answer.content.at_eof() and len(body) <= ANSWER_BYTES_MAX:
                body += await answer.content.read(ANSWER_BYTES_MAX)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        return None
    try:
        return msgspec.json.decode(body, type=Told)
    except (msgspec.DecodeError, RecursionError):  # a tracker's 404, or another version
        return None
