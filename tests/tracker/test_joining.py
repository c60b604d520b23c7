"""Hosts without a certificate at a tracker's door: one token, one certificate, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from p2pdist.cli.failures import CommandError
from p2pdist.cli.join import KEY_UNTIL_JOINED
from p2pdist.cli.join import join as join_command
from p2pdist.control.joining import join
from p2pdist.errors import ConfigError, PeerFault, StoreError
from p2pdist.model.control import Renewed
from p2pdist.model.identity import IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.joining import MAC_BYTES, MAGIC, Token
from p2pdist.model.members import Address, Role
from p2pdist.process import clock
from p2pdist.process.ca import issue_files
from p2pdist.process.certificates import DAY_S, identity_in
from p2pdist.process.host_identity import read_identity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.join_tokens import believed_token, new_token, read_token
from p2pdist.process.requests import new_request
from p2pdist.process.revoked_hosts import sign_revocation
from p2pdist.settings import Settings, Tracker
from p2pdist.store.sqlite_state import SqliteState
from p2pdist.store.state_port import StateRows
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
        uses: int = 1,
    ) -> str:
        ends_s, kind = clock.unix_s() + ttl_s, IdentityRole(role)
        return new_token(self.ca.ca, name or self.name, kind, host_id, ends_s=ends_s, uses=uses)

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


def who(told: Renewed) -> HostId:
    return identity_in(told.certificate).host_id


async def test_a_token_of_several_uses_is_as_many_hosts_and_who_asks_again_is_the_same(
    ca: TestCa,
) -> None:
    requests = [new_request().der for _ in range(4)]
    async with door(ca) as at:
        text = at.token(uses=3)
        told = await asyncio.gather(*(at.joined(text, request) for request in requests))
        joined = [one for one in told if one.certificate]
        assert len({who(one) for one in joined}) == len(joined) == 3
        (refused,) = (one.reason for one in told if not one.certificate)
        assert refused == "the token was used before, by 3 hosts: it is good for no more"
        first = next(n for n, one in enumerate(told) if one.certificate)
    async with door(ca) as at:
        at.server.desk._name = read_token(text).tracker
        assert who(await at.joined(text, requests[first])) == who(told[first])
        assert "by 3 hosts" in (await at.joined(text)).reason


async def test_a_use_that_could_not_be_kept_is_not_signed(ca: TestCa) -> None:
    request = new_request().der
    async with door(ca) as at:
        keep = at.server._store.keep

        async def full(*args: object, **more: object) -> None:
            raise StoreError("no space left")

        text = at.token(uses=2)
        at.server._store.keep = full  # type: ignore[method-assign]  # a disk that is full
        for _ in range(2):  # asked again it was used, and is not on the disk all the same
            assert "cannot sign now" in (await at.joined(text, request)).reason
        at.server._store.keep = keep  # type: ignore[method-assign]
        told = await at.joined(text, request)
        assert told.certificate
        assert at.server.desk.used(read_token(text)) == 1
        assert await kept(ca) == [who(told)]


async def kept(ca: TestCa) -> list[HostId]:
    """The hosts that are on the disk."""
    store = sqlite_join_store(ca.root / "joins.db")
    try:
        return [use.host_id for use in await store.open()]
    finally:
        await store.close()


async def test_a_token_that_was_revoked_lets_nobody_in_and_nobody_out(ca: TestCa) -> None:
    async with door(ca) as at:
        text, other = at.token(uses=5), at.token(uses=5)
        assert (await at.joined(text)).certificate
        token_id = HostId(read_token(text).id.hex())
        await at.server._own.hear_revoked([sign_revocation(ca.ca, [token_id], 1e9)])
        assert (await at.joined(text)).reason == "the token was revoked, for good"
        assert (await at.joined(other)).certificate


async def test_a_host_that_was_revoked_since_does_not_come_back_by_its_key(ca: TestCa) -> None:
    request = new_request().der
    async with door(ca) as at:
        text = at.token(uses=2)
        host = who(await at.joined(text, request))
        await at.server._own.hear_revoked([sign_revocation(ca.ca, [host], 1e9)])
        assert f"host {host} was revoked" in (await at.joined(text, request)).reason


def test_many_hosts_are_peers_whose_ids_nobody_chose(ca: TestCa) -> None:
    for role, host_id, says in (
        ("proxy", None, "not for a proxy"),
        ("tracker", None, "not for a tracker"),
        ("peer", ID, "no certain host id"),
    ):
        with pytest.raises(ValueError, match=says):
            new_token(ca.ca, "t:1", IdentityRole(role), host_id, ends_s=1e10, uses=2)
    with pytest.raises(ValueError, match="<= 30000"):
        new_token(ca.ca, "t:1", IdentityRole.PEER, None, ends_s=1e10, uses=30_001)


def test_a_token_of_several_uses_is_none_to_an_older_tracker_by_its_first_letters(
    ca: TestCa,
) -> None:
    many = new_token(ca.ca, "t:1", IdentityRole.PEER, None, ends_s=1e10, uses=2)
    one = new_token(ca.ca, "t:1", IdentityRole.PEER, None, ends_s=1e10)
    assert (many[:6], one[:6]) == ("p2pj2.", "p2pj1.")
    assert believed_token(ca.ca, many).uses == 2
    for text in ("p2pj1." + many[6:], "p2pj2." + one[6:]):
        with pytest.raises(ValueError, match="was changed"):
            believed_token(ca.ca, text)
    # What it reads of one of one use: six words, as ever.
    body = base64.urlsafe_b64decode(one[6:] + "=" * (-len(one[6:]) % 4))[:-MAC_BYTES]
    assert len(msgspec.msgpack.decode(body)) == 6


async def test_what_an_older_tracker_spent_stays_spent_and_the_other_way_round(
    ca: TestCa,
) -> None:
    """A version is gone back to: neither makes a token good that the other one took."""
    old = SqliteState(ca.root / "joins.db", {"spent": ["id"]}, lambda aside, error: None)
    await old.open(lambda rows: None)
    text = new_token(ca.ca, "t:1", IdentityRole.PEER, None, ends_s=1e10)
    spent = (read_token(text).id, int(1e10))
    await old.write({"spent": [((spent[0].hex(),), msgspec.msgpack.encode(spent))]}, {})
    await old.close()
    async with door(ca) as at:
        at.server.desk._name = "t:1"
        assert "used before" in (await at.joined(text)).reason
        at.server.desk._name = at.name
        once = at.token()
        assert (await at.joined(once)).certificate
        assert (await at.joined(at.token(uses=2))).certificate

    def read(rows: StateRows) -> set[bytes]:
        return {
            msgspec.msgpack.decode(each, type=tuple[bytes, int])[0] for each in rows.of("spent")
        }

    old = SqliteState(ca.root / "joins.db", {"spent": ["id"]}, lambda aside, error: None)
    assert await old.open(read) == {spent[0], read_token(once).id}
    await old.close()


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
        assert {file.name for file in (tmp_path / "third").iterdir()} == {KEY_UNTIL_JOINED}
        assert not (out / KEY_UNTIL_JOINED).exists()


def invoked(*arguments: str) -> Result:
    return CliRunner().invoke(join_command, arguments)


async def test_a_host_that_heard_no_answer_asks_with_the_same_key(
    ca: TestCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, answers = tmp_path / "out", list[HostId]()

    async def lost(*args: Any, **more: Any) -> Renewed:
        answers.append(who(await join(*args, **more)))
        raise TimeoutError

    async with door(ca) as at:
        arguments = (at.token(), "--out", str(out))
        monkeypatch.setattr("p2pdist.control.joining.join", lost)
        failed = await asyncio.to_thread(invoked, *arguments)
        assert "does not answer" in str(failed.exception)
        monkeypatch.undo()
        done = await asyncio.to_thread(invoked, *arguments)
        assert done.exit_code == 0, done.output
        assert read_identity(out, Role.PEER).identity.host_id == answers[0]
        assert not (out / KEY_UNTIL_JOINED).exists()


async def test_if_needed_leaves_what_is_good_and_needs_no_token_for_that(
    ca: TestCa, tmp_path: Path
) -> None:
    out, file = tmp_path / "out", tmp_path / "token"
    arguments = ("--token-file", str(file), "--out", str(out), "--if-needed")
    async with door(ca) as at:
        missing = await asyncio.to_thread(invoked, *arguments)
        assert "No such file" in str(missing.exception)
        file.write_text(at.token(uses=9) + "\n")
        file.chmod(0o600)
        assert (await asyncio.to_thread(invoked, *arguments)).exit_code == 0
        first = read_identity(out, Role.PEER).identity
        for change in (lambda: None, lambda: file.write_text("none"), file.unlink):
            change()
            again = await asyncio.to_thread(invoked, *arguments)
            assert again.exit_code == 0, again.output
            assert f"nothing to do: {out}/cert.pem, for {first}" in again.output
        assert read_identity(out, Role.PEER).identity == first
        assert at.server.joined_total == 1


async def test_if_needed_joins_anew_what_has_ended_or_is_of_another_ca(
    ca: TestCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    (tmp_path / "other").mkdir()
    made = issue_files(
        TestCa(tmp_path / "other").ca, out, IdentityRole.PEER, None, days=1, now_s=clock.unix_s()
    )
    async with door(ca) as at:
        arguments = (at.token(uses=2), "--out", str(out), "--if-needed")
        done = await asyncio.to_thread(invoked, *arguments)
        assert done.exit_code == 0, done.output
        assert "is not of the CA that issues now: asking for another one" in done.output
        second = read_identity(out, Role.PEER)
        assert second.identity != made.identity
        ended_s = clock.unix_s() - 40 * DAY_S
        shutil.rmtree(out)
        issue_files(ca.ca, out, IdentityRole.PEER, None, days=1, now_s=ended_s)
        done = await asyncio.to_thread(invoked, *arguments)
        assert "has ended: asking for another one" in done.output
        assert read_identity(out, Role.PEER).says.ends_s > clock.unix_s()
        proxy = await asyncio.to_thread(invoked, at.token(role="proxy"), *arguments[1:])
        assert "not for a proxy" in str(proxy.exception)


async def test_an_older_tracker_is_named_where_it_knows_no_such_token(
    ca: TestCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(ca: object, text: str) -> Token:
        if not text.startswith("p2pj1."):
            raise ValueError("this is no join token: `p2pdist ca token` makes one")
        return read_token(text)

    monkeypatch.setattr("p2pdist.tracker.joining.believed_token", older)
    async with door(ca) as at:
        done = await asyncio.to_thread(invoked, at.token(uses=2), "--out", str(tmp_path / "out"))
        assert isinstance(done.exception, CommandError)
        assert "refused: this is no join token" in str(done.exception)
        assert "upgrade it" in done.exception.hint
        one = await asyncio.to_thread(invoked, at.token(), "--out", str(tmp_path / "out"))
        assert one.exit_code == 0


def test_the_token_is_given_once(tmp_path: Path) -> None:
    for arguments in ((), ("p2pj1.A", "--token-file", "token")):
        done = invoked(*arguments, "--out", str(tmp_path / "out"))
        assert "either TOKEN or --token-file" in str(done.exception)


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
