"""What registries see of callers that they decide about: each caller's own credentials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Protocol

from cachetools import LRUCache

from p2pdist.oci.auth import Challenge
from p2pdist.oci.callers import NOBODY, Caller
from p2pdist.registry.ports import speaks_for
from p2pdist.registry.reading.auth import UpstreamAuth
from p2pdist.registry.reading.credentials import fixed
from p2pdist.registry.reading.net import UpstreamEntry, UpstreamNet

# One that was dropped has its token bought anew.
CALLERS_MAX: Final = 4096


class Auth(Protocol):
    """How one caller's requests are authorized; as `UpstreamAuth`."""

    async def known(self, entry: UpstreamEntry, scope: str) -> str | None: ...

    async def answer(
        self,
        entry: UpstreamEntry,
        scope: str,
        challenges: Sequence[Challenge],
        *,
        rejected: str | None,
    ) -> str | None: ...


class _Bearer:
    """A token that the caller got itself: there is no better one."""

    def __init__(self, authorization: str) -> None:
        self._authorization = authorization

    async def known(self, entry: UpstreamEntry, scope: str) -> str | None:
        return self._authorization

    async def answer(
        self,
        entry: UpstreamEntry,
        scope: str,
        challenges: Sequence[Challenge],
        *,
        rejected: str | None,
    ) -> str | None:
        return None


class CallerAuths:
    """The tokens that were bought with each caller's account: nobody is asked for in the name of
    another one. In memory only."""

    def __init__(self, net: UpstreamNet, *, callers_max: int = CALLERS_MAX) -> None:
        self._net = net
        self._auths: LRUCache[tuple[str, Caller], UpstreamAuth] = LRUCache(callers_max)

    async def close(self) -> None:
        for auth in list(self._auths.values()):
            await auth.close()

    def of(self, entry: UpstreamEntry) -> tuple[Auth, UpstreamEntry]:
        """How to ask `entry` for whom we speak, and as what; nobody's credentials go to a registry
        that they are not for."""
        upstream, caller = speaks_for.get() or ("", NOBODY)
        if upstream != entry.host:
            caller = NOBODY
        account = caller.account
        if account is None and caller != NOBODY:
            return _Bearer(caller.authorization), entry
        key = entry.host, caller
        auth = self._auths.get(key)
        if auth is None:
            auth = self._auths[key] = UpstreamAuth(self._net)
        credentials = None if account is None else fixed(*account)
        return auth, replace(entry, credentials=credentials)

    def forget(self, upstream: str, caller: Caller) -> None:
        """Drop what was bought with its account: a registry that takes a right back does not take
        back the tokens that it gave."""
        self._auths.pop((upstream, caller), None)
