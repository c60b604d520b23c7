"""Registries with certificates of their own: whom we believe, and to whom we show ours."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from p2pdist.errors import ConfigError, UpstreamError
from p2pdist.model.members import Address
from p2pdist.registry.reading.entries import upstream_entries
from p2pdist.registry.reading.net import UpstreamEntry, UpstreamNet, UpstreamTimeouts
from p2pdist.registry.reading.tls import system_context
from p2pdist.settings import Settings, Upstream
from tests.fakes.certificates import Authority
from tests.registry.reading.upstream_parts import LOOPBACK, FakeDns, places

REGISTRY, STORAGE = "registry.test", "storage.test"
NOBODY = "nobody"


@asynccontextmanager
async def serving(host: str, authority: Authority, **redirect: str) -> AsyncIterator[int]:
    """Serve https as `host` and say who the client is; `/away` leads to `redirect["to"]`."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/away":
            raise web.HTTPFound(redirect["to"])
        assert request.transport is not None
        shown = request.transport.get_extra_info("peercert")
        return web.Response(text=dict(shown["subject"][0])["commonName"] if shown else NOBODY)

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.file)
    context.load_cert_chain(*authority.issue(host))
    context.verify_mode = ssl.CERT_OPTIONAL
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


class Place:
    """A registry and its storage, both with certificates of a company's own authority."""

    def __init__(self, authority: Authority, port: int, storage_port: int) -> None:
        self.authority = authority
        self.port = port
        self.storage_port = storage_port

    def entry(self, **settings: Any) -> UpstreamEntry:
        url = f"https://{REGISTRY}:{self.port}"
        private = (*LOOPBACK, *places(f"127.0.0.1:{self.storage_port}"))
        upstream = Upstream(
            f"{REGISTRY}:{self.port}", url, allow_private=private, access="shared", **settings
        )
        (entry,) = upstream_entries(Settings(upstream=(upstream,)), with_secrets=True)
        return entry

    async def ask(self, path: str, **settings: Any) -> str:
        net = UpstreamNet(
            UpstreamTimeouts(), FakeDns({REGISTRY: "127.0.0.1", STORAGE: "127.0.0.1"})
        )
        try:
            entry = self.entry(**settings)
            got = await net.follow(entry, "GET", f"{entry.url}/{path}", {}, authorization=None)
            return await got.text()
        finally:
            await net.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    authority = Authority(tmp_path)
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(serving(STORAGE, authority))
        away = f"https://{STORAGE}:{storage}/"
        registry = await stack.enter_async_context(serving(REGISTRY, authority, to=away))
        yield Place(authority, registry, storage)


@pytest.mark.parametrize("path", ["", "away"])
async def test_the_authority_of_a_company_is_believed_wherever_it_leads(
    place: Place, path: str
) -> None:
    with pytest.raises(UpstreamError, match="certificate is not believed"):
        await place.ask(path)

    assert await place.ask(path, ca_file=place.authority.file) == NOBODY


@pytest.fixture
def fresh_system_context() -> Iterator[None]:
    system_context.cache_clear()
    yield
    system_context.cache_clear()


@pytest.mark.parametrize("by", ["the system", "ca_file"])
@pytest.mark.usefixtures("fresh_system_context")
async def test_an_authority_that_leaves_extensions_out_is_believed_by_every_python(
    place: Place, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """This one's certificates do not name its key; Python 3.13 turns them down by default."""
    usual = ssl.create_default_context

    def strict() -> ssl.SSLContext:
        context = usual()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
    settings: dict[str, Any] = {"ca_file": place.authority.file}
    if by == "the system":
        monkeypatch.setenv("SSL_CERT_FILE", str(place.authority.file))
        settings = {}

    assert await place.ask("", **settings) == NOBODY


async def test_another_authority_is_not_believed(place: Place, tmp_path: Path) -> None:
    other = Authority(tmp_path, "another one")

    with pytest.raises(UpstreamError, match="certificate is not believed"):
        await place.ask("", ca_file=other.file)


async def test_a_certificate_for_another_host_is_not_believed(tmp_path: Path, place: Place) -> None:
    async with serving("elsewhere.test", place.authority) as port:
        liar = Place(place.authority, port, 1)
        with pytest.raises(UpstreamError, match="certificate is not believed"):
            await liar.ask("", ca_file=place.authority.file)


async def test_only_the_hosts_that_are_named_go_unchecked(place: Place) -> None:
    registry = Address(REGISTRY, place.port)
    assert await place.ask("", insecure=(registry,)) == NOBODY
    with pytest.raises(UpstreamError, match="certificate is not believed"):
        await place.ask("away", insecure=(registry,))
    storage = Address(STORAGE, place.storage_port)
    assert await place.ask("away", insecure=(registry, storage)) == NOBODY
    with pytest.raises(UpstreamError, match="certificate is not believed"):
        await place.ask("", insecure=(Address(REGISTRY, place.port + 1),))


async def test_our_certificate_is_shown_to_the_registry_alone(place: Place) -> None:
    certificate, key = place.authority.issue("the proxy")
    given = {
        "ca_file": place.authority.file,
        "cert_file": certificate,
        "cert_key_file": key,
    }

    assert await place.ask("", **given) == "the proxy"
    assert await place.ask("away", **given) == NOBODY


async def test_our_certificate_is_an_account(place: Place) -> None:
    certificate, key = place.authority.issue("the proxy")
    both = place.entry(cert_file=certificate, cert_key_file=key)

    assert both.has_account
    assert not place.entry(ca_file=place.authority.file).has_account


def wrong(**settings: Any) -> str:
    """The error of an upstream with `settings`."""
    upstream = Upstream("registry.test", **settings)
    with pytest.raises(ConfigError) as caught:
        upstream_entries(Settings(upstream=(upstream,)), with_secrets=True)
    assert str(caught.value).startswith("upstream registry.test: ")
    return str(caught.value)


def test_files_that_do_not_fit_are_named_at_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("one.test")
    _, another_key = authority.issue("two.test")
    none = tmp_path / "none.pem"

    assert f"ca_file {none}: No such file" in wrong(ca_file=none)
    assert f"ca_file {key}: is no certificate" in wrong(ca_file=key)
    assert "not that of its key" in wrong(cert_file=certificate, cert_key_file=another_key)
    assert "cert_key_file without cert_file" in wrong(cert_key_file=key)
    key.chmod(0o644)
    assert "run: chmod 600" in wrong(cert_file=certificate, cert_key_file=key)
    assert "may be read by others" in wrong(cert_file=certificate), "its key would lie in it"


def test_two_accounts_are_one_too_many(tmp_path: Path) -> None:
    text = wrong(username="robot", auth_file=tmp_path / "config.json")

    assert "username and auth_file name two accounts; leave one" in text
