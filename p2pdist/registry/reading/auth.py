"""Credentials for upstreams: bearer tokens and Basic, sent to nobody but upstream and its realm."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Sequence
from typing import Final

import aiohttp
from cachetools import LRUCache
from yarl import URL

from p2pdist.errors import UpstreamError
from p2pdist.oci.auth import (
    TOKEN_BODY_BYTES_MAX,
    Challenge,
    Token,
    parse_token_response,
    realm_allowed,
    scopes_asked,
    service_allowed,
)
from p2pdist.oci.credential_files import REFRESH_USER, Account
from p2pdist.process import logs
from p2pdist.process.single_flight import SingleFlight
from p2pdist.registry.reading.body import read_bounded
from p2pdist.registry.reading.net import BadAnswer, UpstreamEntry, UpstreamNet, parse_url

log = logging.getLogger(__name__)

# One per repository and upstream; a token that was dropped is asked for anew.
TOKENS_MAX: Final = 10_000
# A token is given up so much before its end, that it does not expire on its way.
_EARLY_S: Final = 10.0
_EARLY_SHARE: Final = 0.1
_CLIENT_ID: Final = "p2pdist"

_Key = tuple[str, str]


class UpstreamAuth:
    """Keeps what each upstream wants to see in `Authorization`.

    Tokens are kept by (upstream, scope), until shortly before they expire; requests that lack
    the same one wait for one answer of the token service.
    """

    def __init__(self, net: UpstreamNet) -> None:
        self._net = net
        self._tokens: LRUCache[_Key, tuple[str, float]] = LRUCache(TOKENS_MAX)
        self._flights: SingleFlight[_Key, str] = SingleFlight("upstream tokens")
        self._basic: set[str] = set()
        self.token_requests_total = 0

    async def close(self) -> None:
        await self._flights.close()

    async def known(self, entry: UpstreamEntry, scope: str) -> str | None:
        """The header that will do as far as we know, without asking the registry or its realm."""
        if entry.credentials is not None and entry.host in self._basic:
            return _basic(await entry.credentials.account())
        token, expires_s = self._tokens.get((entry.host, scope), ("", 0.0))
        return f"Bearer {token}" if expires_s > _now_s() else None

    async def answer(
        self,
        entry: UpstreamEntry,
        scope: str,
        challenges: Sequence[Challenge],
        *,
        rejected: str | None,
    ) -> str | None:
        """Return a header for a 401; None when there is nothing better than what was `rejected`.

        Raises UpstreamError where the token service refuses or must not be asked.
        """
        bearer = next((c for c in challenges if c.scheme == "bearer"), None)
        if bearer is not None:
            return await self._bearer(entry, scope, bearer, rejected)
        if any(c.scheme == "basic" for c in challenges) and entry.credentials is not None:
            self._basic.add(entry.host)
            account = await entry.credentials.account()
            if _basic(account) == rejected:
                account = await entry.credentials.account(rejected=account)
            return _basic(account) if _basic(account) != rejected else None
        return None

    async def _bearer(
        self, entry: UpstreamEntry, scope: str, challenge: Challenge, rejected: str | None
    ) -> str | None:
        known = await self.known(entry, scope)
        if known is not None and known != rejected:
            return known  # another request got a fresh one meanwhile
        key = (entry.host, scope)
        self._basic.discard(entry.host)
        self._tokens.pop(key, None)
        token = await self._flights.run(key, lambda: self._fetch(entry, key, challenge))
        return f"Bearer {token}"

    async def _fetch(self, entry: UpstreamEntry, key: _Key, challenge: Challenge) -> str:
        realm = challenge.params.get("realm", "")
        service = challenge.params.get("service", "")
        await asyncio.to_thread(check_service, entry, realm, service)
        scopes = scopes_asked(challenge.params.get("scope", ""), key[1])
        token = await self._token(entry, parse_url(realm), service, scopes)
        early_s = min(_EARLY_S, token.expires_in_s * _EARLY_SHARE)
        self._tokens[key] = (token.token, _now_s() + token.expires_in_s - early_s)
        return token.token

    async def _token(
        self, entry: UpstreamEntry, realm: URL, service: str, scopes: Sequence[str]
    ) -> Token:
        """Ask with the account that is known, and with another one if there is one by now."""
        if entry.credentials is None:
            return await self._ask(entry, realm, service, scopes, None)
        account = await entry.credentials.account()
        try:
            return await self._ask(entry, realm, service, scopes, account)
        except UpstreamError as error:
            if error.status != 401:
                raise
            fresh = await entry.credentials.account(rejected=account)
            if fresh == account:
                raise
        return await self._ask(entry, realm, service, scopes, fresh)

    async def _ask(
        self,
        entry: UpstreamEntry,
        realm: URL,
        service: str,
        scopes: Sequence[str],
        account: Account | None,
    ) -> Token:
        """GET first: every service knows it; POST where GET is refused, or for refresh tokens."""
        if account is not None and account.username == REFRESH_USER:
            grant = {"grant_type": "refresh_token", "refresh_token": account.password}
            return await self._read(entry, await self._post(entry, realm, service, scopes, grant))
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {"Authorization": _basic(account)} if account is not None else {}
        self.token_requests_total += 1
        response = await self._net.ask(entry, "GET", realm.extend_query(query), headers)
        if response.status in (404, 405) and account is not None:
            response.close()
            grant = {"grant_type": "password", **account._asdict()}
            response = await self._post(entry, realm, service, scopes, grant)
        return await self._read(entry, response)

    async def _post(
        self,
        entry: UpstreamEntry,
        realm: URL,
        service: str,
        scopes: Sequence[str],
        grant: dict[str, str],
    ) -> aiohttp.ClientResponse:
        self.token_requests_total += 1
        form = {"service": service, "scope": " ".join(scopes), "client_id": _CLIENT_ID, **grant}
        return await self._net.ask(entry, "POST", realm, {}, form=form)

    @staticmethod
    async def _read(entry: UpstreamEntry, response: aiohttp.ClientResponse) -> Token:
        try:
            if response.status != 200:
                raise UpstreamError(
                    f"the token service of {entry.host} answered {response.status} "
                    f"to {entry.asker}",
                    status=401 if response.status < 500 and response.status != 429
                    else response.status,
                )  # fmt: skip
            return parse_token_response(await read_bounded(response, TOKEN_BODY_BYTES_MAX))
        except ValueError as error:
            raise BadAnswer(f"{entry.host}: {error}") from None
        finally:
            response.close()


def check_service(entry: UpstreamEntry, realm: str, service: str) -> None:
    """Raise BadAnswer for a token service that is not the upstream's; reads a list at first."""
    base = URL(entry.url)
    host, is_http = f"{base.host_subcomponent}:{base.port}", base.scheme == "http"
    if not realm_allowed(realm, host, entry.auth_hosts, upstream_is_http=is_http):
        logs.event(log, logging.ERROR, "upstream.foreign_realm", upstream=entry.host)
        raise BadAnswer(f"{entry.host} wants credentials sent to a foreign token service")
    if not service_allowed(service, host, (*entry.auth_hosts, entry.host)):
        logs.event(log, logging.ERROR, "upstream.foreign_service", upstream=entry.host)
        raise BadAnswer(f"{entry.host} wants a token for another registry")


def _basic(account: Account) -> str:
    text = f"{account.username}:{account.password}".encode()
    return "Basic " + base64.b64encode(text).decode()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
