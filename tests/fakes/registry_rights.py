"""Users of a fake registry, and which repositories each of them may pull."""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass, field
from typing import Literal

from aiohttp import hdrs, web


@dataclass
class Rights:
    """As docker-registry with htpasswd, or with a token service; may be changed at any time."""

    may_pull: dict[str, set[str]]
    """By user; the password of each is its name and `-secret`."""
    kind: Literal["basic", "bearer"] = "bearer"
    public: set[str] = field(default_factory=set)
    """Repositories that anybody may pull."""
    _tokens: dict[str, tuple[str, str]] = field(default_factory=dict)
    """User and scope; a token is good as long as it lives, whatever becomes of its user."""
    _numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))

    def wanted(self, given: str, repository: str, realm: str) -> str | None:
        """The challenge of a request with this `Authorization`; None: it is let."""
        if repository in self.public and (self.kind == "basic" or not given):
            return None
        scope = f"repository:{repository}:pull"
        if self.kind == "basic":
            user = self._user(given)
            let = user is not None and (not repository or repository in self.may_pull[user])
            return None if let else 'Basic realm="fake"'
        if self._tokens.get(given.removeprefix("Bearer "), ("", ""))[1] == scope:
            return None
        asked = f',scope="{scope}"' if repository else ""
        return f'Bearer realm="{realm}",service="fake"{asked}'

    def token(self, request: web.Request) -> web.Response:
        """A token without a scope for who may not pull: that is how token services refuse."""
        user = self._user(request.headers.get(hdrs.AUTHORIZATION, ""))
        if user is None and hdrs.AUTHORIZATION in request.headers:
            return web.Response(status=401)
        scope = request.query.get("scope", "")
        repository = scope.removeprefix("repository:").removesuffix(":pull")
        let = repository in self.public or (user is not None and repository in self.may_pull[user])
        token = f"fake-{user}-token-{next(self._numbers)}"
        self._tokens[token] = user or "", scope if let else ""
        return web.json_response({"token": token, "expires_in": 300})

    def _user(self, given: str) -> str | None:
        return next((user for user in self.may_pull if given == basic(user)), None)


def basic(user: str) -> str:
    """What a client of `user` sends."""
    return "Basic " + base64.b64encode(f"{user}:{user}-secret".encode()).decode()
