"""Who may do what at the registry: told by a token service, or by a file of names and passwords."""

from __future__ import annotations

import base64
import datetime
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import hdrs, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from p2pdist.model.private_places import PrivatePlace, parse_private_place
from p2pdist.process.clock import unix_s
from tests.fakes.registry_rights import basic

LIFE_S: Final = 300
ISSUER: Final = "bench"
SERVICE: Final = "bench-registry"
_LINES: Final = {
    "alice": "alice:$2b$04$zBFx6hskXCl5XEtfVfXVeu4z90BUiOPGT3nJYtEHsau3fM3YLF0rK",
    "bob": "bob:$2b$04$2okrGEahfctivSLVeLMYt.UWS4SZShjOnBtnuGMlm99qJ3vJgBWZa",
}
"""Of `alice-secret` and `bob-secret`, by bcrypt: docker-registry takes nothing else."""


class Rights(Protocol):
    """Of alice and bob; the password of each is its name and `-secret`."""

    kind: str
    places: tuple[PrivatePlace, ...]
    """Where the registry leads its clients to."""

    def ready(self, work: Path) -> AbstractAsyncContextManager[dict[str, Any]]:
        """Be there for a registry; what its configuration says under `auth`."""
        ...

    async def given(self, session: aiohttp.ClientSession, user: str) -> str:
        """The `Authorization` that lets a user push to its own repository."""
        ...

    def withdraw(self, user: str) -> None:
        """From now on it may nothing."""
        ...


class Tokens:
    """Sells tokens of docker-registry's own kind: JWT, signed by a key that it was told of."""

    kind = "tokens"

    def __init__(self) -> None:
        self.places: tuple[PrivatePlace, ...] = ()
        self._may = {"alice": {"alice/app"}, "bob": {"bob/app"}}
        self._address = ""
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.fromtimestamp(unix_s(), datetime.UTC)
        made = x509.CertificateBuilder(name, name, self._key.public_key())
        made = made.serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        self._certificate = made.sign(self._key, hashes.SHA256())

    @asynccontextmanager
    async def ready(self, work: Path) -> AsyncIterator[dict[str, Any]]:
        app = web.Application()
        app.router.add_get("/token", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._address = f"127.0.0.1:{runner.addresses[0][1]}"
        place = parse_private_place(self._address)
        self.places = (place,)
        bundle = work / "bundle.pem"
        bundle.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))
        auth = {
            "realm": f"http://{self._address}/token",
            "service": SERVICE,
            "issuer": ISSUER,
            "rootcertbundle": str(bundle),
        }
        try:
            yield {"token": auth}
        finally:
            await runner.cleanup()

    async def given(self, session: aiohttp.ClientSession, user: str) -> str:
        query = {"service": SERVICE, "scope": f"repository:{user}/app:pull,push"}
        headers = {"Authorization": basic(user)}
        url = f"http://{self._address}/token"
        async with session.get(url, params=query, headers=headers) as sold:
            return f"Bearer {(await sold.json())['token']}"

    def withdraw(self, user: str) -> None:
        self._may[user] = set()

    async def _answer(self, request: web.Request) -> web.Response:
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        user = next((user for user in self._may if given == basic(user)), "")
        if given and not user:
            return web.Response(status=401)
        access = []
        for scope in request.query.getall("scope", []):
            kind, name, actions = scope.split(":")
            if kind == "repository" and name in self._may.get(user, ()):
                granted = {"type": kind, "name": name, "actions": actions.split(",")}
                access.append(granted)
        return web.json_response({"token": self._signed(user, access), "expires_in": LIFE_S})

    def _signed(self, user: str, access: list[dict[str, Any]]) -> str:
        now_s = int(unix_s())
        der = self._certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        body = {
            "iss": ISSUER,
            "sub": user,
            "aud": SERVICE,
            "iat": now_s,
            "nbf": now_s - 10,
            "exp": now_s + LIFE_S,
            "jti": f"{now_s}-{id(access)}",
            "access": access,
        }
        said = ".".join(_encoded(json.dumps(part).encode()) for part in (head, body))
        mark = self._key.sign(said.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{said}.{_encoded(mark)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Htpasswd:
    """Basic: whom the registry knows may read all of it."""

    kind = "htpasswd"
    places: tuple[PrivatePlace, ...] = ()

    def __init__(self) -> None:
        self._file = Path()
        self._users = ["alice", "bob"]

    @asynccontextmanager
    async def ready(self, work: Path) -> AsyncIterator[dict[str, Any]]:
        self._file = work / "htpasswd"
        self._write()
        yield {"htpasswd": {"realm": "bench", "path": str(self._file)}}

    async def given(self, session: aiohttp.ClientSession, user: str) -> str:
        return basic(user)

    def withdraw(self, user: str) -> None:
        """The registry reads the file again once it has changed."""
        self._users.remove(user)
        self._write()

    def _write(self) -> None:
        self._file.write_text("".join(f"{_LINES[user]}\n" for user in self._users))
