"""A docker-registry with users, and the token service that says what each of them may do there."""

from __future__ import annotations

import asyncio
import base64
import datetime
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import hdrs, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from p2pdist.model.ids import digest_of
from p2pdist.process.clock import unix_s
from tests.fakes.registry_images import BuiltImage
from tests.fakes.registry_rights import basic

LIFE_S: Final = 300
ISSUER: Final = "bench"


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


class Tokens:
    """Sells tokens of docker-registry's own kind: JWT, signed by a key that it was told of."""

    def __init__(self, service: str) -> None:
        self.may: dict[str, set[str]] = {}
        """Repositories of each user; the password of each is its name and `-secret`."""
        self.address = ""
        """Where they are sold, once they are."""
        self._service = service
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, ISSUER)])
        now = datetime.datetime.fromtimestamp(unix_s(), datetime.UTC)
        made = x509.CertificateBuilder(name, name, self._key.public_key())
        made = made.serial_number(1).not_valid_before(now - datetime.timedelta(hours=1))
        made = made.not_valid_after(now + datetime.timedelta(days=1))
        self.certificate = made.sign(self._key, hashes.SHA256())

    async def answer(self, request: web.Request) -> web.Response:
        given = request.headers.get(hdrs.AUTHORIZATION, "")
        user = next((user for user in self.may if given == basic(user)), "")
        if given and not user:
            return web.Response(status=401)
        access = []
        for scope in request.query.getall("scope", []):
            kind, name, actions = scope.split(":")
            if kind == "repository" and name in self.may.get(user, ()):
                granted = {"type": kind, "name": name, "actions": actions.split(",")}
                access.append(granted)
        return web.json_response({"token": self._signed(user, access), "expires_in": LIFE_S})

    def _signed(self, user: str, access: list[dict[str, Any]]) -> str:
        now_s = int(unix_s())
        der = self.certificate.public_bytes(serialization.Encoding.DER)
        head = {"typ": "JWT", "alg": "RS256", "x5c": [base64.b64encode(der).decode()]}
        body = {
            "iss": ISSUER,
            "sub": user,
            "aud": self._service,
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


@asynccontextmanager
async def running_registry(work: Path, tokens: Tokens) -> AsyncIterator[str]:
    """Run the registry and its token service; yield the registry's URL."""
    app = web.Application()
    app.router.add_get("/token", tokens.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = free_port()
    bundle = work / "bundle.pem"
    bundle.write_bytes(tokens.certificate.public_bytes(serialization.Encoding.PEM))
    tokens.address = f"127.0.0.1:{runner.addresses[0][1]}"
    auth = {
        "realm": f"http://{tokens.address}/token",
        "service": "bench-registry",
        "issuer": ISSUER,
        "rootcertbundle": str(bundle),
    }
    config = work / "registry.yml"
    settings = {
        "version": 0.1,
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(work / "storage")}},
        "http": {"addr": f"127.0.0.1:{port}"},
        "auth": {"token": auth},
    }
    config.write_text(json.dumps(settings))
    with (work / "registry.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "docker-registry", "serve", str(config), stdout=log, stderr=log
        )
    try:
        await _wait_listening(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()
        await runner.cleanup()


async def _wait_listening(port: int) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def push(
    session: aiohttp.ClientSession, url: str, repository: str, image: BuiltImage, token: str
) -> None:
    """Push as whom `token` is of."""
    headers = {"Authorization": f"Bearer {token}"}
    base = f"{url}/v2/{repository}"
    for blob in (image.config, *image.layers):
        async with session.post(f"{base}/blobs/uploads/", headers=headers) as begun:
            begun.raise_for_status()
            place = begun.headers["Location"]
        query = {"digest": digest_of(blob)}
        async with session.put(place, params=query, data=blob, headers=headers) as done:
            done.raise_for_status()
    sent = {**headers, "Content-Type": image.media_type}
    async with session.put(f"{base}/manifests/1", data=image.manifest, headers=sent) as done:
        done.raise_for_status()
