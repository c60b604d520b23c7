"""Checks of the registries that a proxy reads: is there a way, and do they take the account?"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from p2pdist.doctor.findings import Finding, Level, failed, passed
from p2pdist.errors import ConfigError, ErrorReason, UpstreamError
from p2pdist.oci.names import ImageName
from p2pdist.oci.reference import DOCKER_HUB
from p2pdist.oci.refusals import fix_of
from p2pdist.registry.reading.client import UpstreamClient, UpstreamEntry, UpstreamRefusal
from p2pdist.registry.reading.entries import upstream_entries
from p2pdist.registry.reading.net import UpstreamTimeouts
from p2pdist.settings import Settings

TIMEOUTS: Final = UpstreamTimeouts(connect_s=2.0, headers_s=3.0, idle_s=3.0, question_s=5.0)
"""A token and a manifest, each with a handshake over a long way."""
AT_A_TIME: Final = 8

# That an image is unknown proves as much as an image. Docker Hub, whose images everybody may read,
# says 401 of those that are not there.
PROBED: Final[Mapping[str, str]] = {DOCKER_HUB: "library/hello-world"}
PROBED_ELSEWHERE: Final = "p2pdist/doctor"
TAG: Final = "latest"

_REFUSED: Final = frozenset({ErrorReason.CREDENTIALS, ErrorReason.DENIED})
_OUT_OF_OUR_HANDS: Final = frozenset({ErrorReason.REGISTRY_DOWN, ErrorReason.REGISTRY_ERROR})


async def check_upstreams(settings: Settings) -> list[Finding]:
    """Ask each registry for a token and a manifest; all of them side by side."""
    try:
        entries = upstream_entries(settings, with_secrets=True)
    except ConfigError:  # another check says so
        return []
    places = asyncio.Semaphore(AT_A_TIME)

    async def check(entry: UpstreamEntry) -> Finding:
        async with places, UpstreamClient([entry], timeouts=TIMEOUTS) as client:
            return await _check(entry, client)

    return await asyncio.gather(*map(check, entries))


async def _check(entry: UpstreamEntry, client: UpstreamClient) -> Finding:
    name = ImageName(entry.host, PROBED.get(entry.host, PROBED_ELSEWHERE))
    whose = "with its account" if entry.has_account else "without an account"
    try:
        head = await client.head_manifest(name, TAG)
        if head.digest is None:  # only a GET says why
            await client.get_manifest(name, TAG)
    except UpstreamError as error:
        if error.reason is ErrorReason.UNKNOWN:
            return await _unknown(entry, client, error, whose)
        if error.reason in _REFUSED and await _refuses_the_unknown(entry, client):
            return passed("registry", f"{entry.host} answers {whose}; it hides what is not there")
        return _finding(entry, error)
    return passed("registry", f"{entry.host} shows manifests {whose}")


async def _unknown(
    entry: UpstreamEntry, client: UpstreamClient, error: UpstreamError, whose: str
) -> Finding:
    """Any web server says 404; a registry says of what, or knows `/v2/`."""
    if not (isinstance(error, UpstreamRefusal) and error.code):
        try:
            await client.ping(entry.host)
        except UpstreamError as refusal:
            if refusal.reason is ErrorReason.UNKNOWN:
                text = f"{entry.host}: what answers at {entry.url} is no registry"
                return failed("registry", text, f"check the url of [[upstream]] {entry.host}")
    return passed("registry", f"{entry.host} answers {whose}")


async def _refuses_the_unknown(entry: UpstreamEntry, client: UpstreamClient) -> bool:
    """Whether the refusal says nothing of the account: an image that is not there is refused to
    everybody, and `/v2/` is shown to this account alone."""
    if entry.credentials is None:
        return not entry.has_account or await _shown(client, entry.host)
    stranger = replace(entry, credentials=None)
    async with UpstreamClient([stranger], timeouts=TIMEOUTS) as nobody:
        return await _shown(client, entry.host) and not await _shown(nobody, entry.host)


async def _shown(client: UpstreamClient, host: str) -> bool:
    try:
        await client.ping(host)
    except UpstreamError:
        return False
    return True


def _finding(entry: UpstreamEntry, error: UpstreamError) -> Finding:
    level = Level.WARN if error.reason is ErrorReason.RATE_LIMITED else Level.FAIL
    fix, text = fix_of(error.reason, entry.host), str(error)
    named = text if entry.host in text else f"{entry.host}: {text}"
    return Finding("registry", level, named, fix, error.reason in _OUT_OF_OUR_HANDS)
