"""Hosts without a certificate at a tracker's door: one token, one certificate, and nobody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from p2pdist.cli.join import join as join_command
from p2pdist.control.joining import join
from p2pdist.errors import ConfigError, PeerFault
from p2pdist.model.control import Renewed
from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.joining import MAGIC
from p2pdist.model.members import Address, Role
from p2pdist.process import clock
from p2pdist.process.host_identity import read_identity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.join_tokens import new_token, read_token
from p2pdist.process.requests import new_request
from p2pdist.process.revoked_hosts import sign_revocation
from p2pdist.settings import Settings, Tracker
from p2pdist.tracker.core.joins import CONNECTIONS_OF_ONE_MAX
from p2pdist.tracker.join_store import sqlite_join_store
from p2pdist.tracker.joining import JoinServer, join_address
from p2pdist.tracker.renewing import Renewer
from tests.process.identities import TestCa
from tests.tracker.servers import TRACKER, wait_until

ID = HostId("a" * 32)


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


class Door:
    """A tracker's, on a port of its own."""

    def __init__(self, ca: TestCa, server: JoinServer, name: str) -> None:
        self.ca = ca
        self.server = server
        self.name = name

    def token(
        self,
        *,
        role: str = "peer",
        host_id: HostId | None = None,
        ttl_s: float = 60,
        name: str = "",
    ) -> str:
        ends_s = clock.unix_s() + ttl_s
        return new_token(self.ca.ca, name or self.name, IdentityRole(role), host_id, ends_s=ends_s)

    async def joined(self, text: str, request: bytes | None = None) -> Renewed:
        """Whatever the token names: at this door."""
        aimed = msgspec.structs.replace(read_token(text), tracker=self.name)
        return await join(aimed, text, request or new_request().der, now_s=clock.unix_s())


@asynccontextmanager
async def door(ca: TestCa, role: str = "tracker") -> AsyncIterator[Door]:
    own = IdentityHolder(ca.identity("tracker", TRACKER.host_id))
    store = sqlite_join_store(ca.root / "joins.db")
    renewer = Renewer(ca.keep(), own)
    if role != "tracker":
        own.current = replace(own.current, directory=ca.directory(role, ID))
    server = JoinServer("unknown:1", Address("127.0.0.1", 0), own, renewer, store)
    address = await server.start()
    server.desk._name = str(address)
    try:
        yield Door(ca, server, str(address))
    finally:
        await server.close()


async def test_a_token_is_one_certificate(ca: TestCa) -> None:
    async with door(ca) as at:
        text = at.token(host_id=ID)
        told = await at.joined(text)
        assert told.certificate
        assert told.reason == ""
        again = await at.joined(text)
        assert again.certificate == b""
        assert "used before" in again.reason
        assert (at.server.joined_total, at.server.refused_total) == (1, 1)


async def test_nobody_joins_under_a_revoked_id(ca: TestCa) -> None:
    async with door(ca) as at:
        await at.server._own.hear_revoked([sign_revocation(ca.ca, [ID], 1e9)])
        told = await at.joined(at.token(host_id=ID))
        assert told.certificate == b""
        assert f"host {ID} was revoked" in told.reason
        assert (await at.joined(at.token())).certificate


async def test_two_at_once_are_one(ca: TestCa) -> None:
    async with door(ca) as at:
        text = at.token()
        both = await asyncio.gather(at.joined(text), at.joined(text))
        assert sorted(bool(told.certificate) for told in both) == [False, True]


async def test_a_restart_does_not_forget(ca: TestCa) -> None:
    async with door(ca) as at:
        text = at.token()
        assert (await at.joined(text)).certificate
    async with door(ca) as at:
        at.server.desk._name = read_token(text).tracker
        assert "used before" in (await at.joined(text)).reason


async def test_what_is_no_token_of_this_tracker_and_this_moment_is_refused(
    ca: TestCa, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    async with door(ca) as at:
        for text, says in (
            (at.token(name="another:5201"), "for the tracker another:5201"),
            (at.token(ttl_s=-1), "has ended"),
            (changed(at.token()), "was changed"),
        ):
            told = await at.joined(text)
            assert told.certificate == b""
            assert says in told.reason
        assert "malformed request" in (await at.joined(at.token(), b"none")).reason
        assert at.server.joined_total == 0
        at.ca = TestCa(tmp_path / "other")
        with pytest.raises(PeerFault, match="no tracker of the token's CA"):
            await at.joined(at.token())


def changed(text: str) -> str:
    """Its MAC is another one."""
    return text[:-6] + ("A" if text[-6] != "A" else "B") + text[-5:]


async def test_a_hosts_certificate_is_no_tracker_to_who_joins(ca: TestCa) -> None:
    """Whoever has one could have the token, and with it the certificate."""
    async with door(ca, "peer") as at:
        with pytest.raises(PeerFault, match="no tracker of the token's CA"):
            await at.joined(at.token())
        assert at.server.refused_total == 0, "it saw no token"


async def test_what_speaks_no_tls_is_said_and_sees_nothing(ca: TestCa) -> None:
    saw = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with contextlib.suppress(OSError):
            saw.extend(await reader.read())
        writer.close()

    async with door(ca) as at, await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        text = at.token()
        at.name = f"127.0.0.1:{other.sockets[0].getsockname()[1]}"
        with pytest.raises(PeerFault, match="speaks no TLS"):
            await at.joined(text)
    assert text.encode() not in saw


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x16" + bytes(300), MAGIC])
async def test_garbage_and_clear_text_end_their_connection_alone(ca: TestCa, said: bytes) -> None:
    async with door(ca) as at:
        host, _, port = at.name.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        async with asyncio.timeout(5):
            with contextlib.suppress(OSError):
                await reader.read()
        writer.close()
        assert (await at.joined(at.token())).certificate


async def test_silent_connections_have_an_end_and_a_limit(
    ca: TestCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.tracker.joining.JOIN_S", 0.3)
    async with door(ca) as at:
        host, _, port = at.name.rpartition(":")
        open_ones = [
            await asyncio.open_connection(host, int(port))
            for _ in range(CONNECTIONS_OF_ONE_MAX + 3)
        ]
        async with asyncio.timeout(5):
            for reader, writer in open_ones:
                with contextlib.suppress(OSError):
                    await reader.read()
                writer.close()
        await wait_until(lambda: not at.server._connections)
        assert not at.server.desk._open
        assert (await at.joined(at.token())).certificate


async def test_the_command_writes_what_a_daemon_starts_with(ca: TestCa, tmp_path: Path) -> None:
    from click.testing import CliRunner

    out = tmp_path / "out"
    async with door(ca) as at:
        arguments = [at.token(host_id=ID), "--out", str(out)]
        done = await asyncio.to_thread(CliRunner().invoke, join_command, arguments)
        assert done.exit_code == 0, done.output
        assert f"for    peer {ID}" in done.output
        assert read_identity(out, Role.PEER).says.identity is not None
        again = await asyncio.to_thread(CliRunner().invoke, join_command, arguments)
        assert isinstance(again.exception, ConfigError)
        assert "is there already" in str(again.exception)
        arguments = ["-", "--out", str(tmp_path / "another")]
        typed = partial(CliRunner().invoke, join_command, arguments, f"{at.token(host_id=ID)}\n")
        assert (await asyncio.to_thread(typed)).exit_code == 0
        arguments[2] = str(tmp_path / "third")
        spent = await asyncio.to_thread(typed)
        assert "used before" in str(spent.exception)
        assert not (tmp_path / "third").exists()


@pytest.mark.parametrize("text", ["", "p2pj1.", "p2pj1.AAAA", "nothing", "p2pj1." + "A" * 2000])
def test_what_is_no_token_is_said(text: str) -> None:
    with pytest.raises(ValueError, match="join token"):
        read_token(text)


def test_the_settings_say_where() -> None:
    def where(join: str, ca_dir: Path | None = Path("/ca")) -> Address | None:
        listen = Address("10.0.0.2", 5200)
        return join_address(Settings(tracker=Tracker(listen, join=join, ca_dir=ca_dir)))

    assert where("") is None
    assert where("tracker.example:5201") == Address("10.0.0.2", 5201)
    with pytest.raises(ConfigError, match="is no HOST:PORT"):
        where("tracker.example")
    with pytest.raises(ConfigError, match=r"tracker\.ca_dir is not"):
        where("tracker.example:5201", None)
