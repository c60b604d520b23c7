"""The mutual handshake: who may talk to whom, and what both agree on."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import LinkRefused, PeerFault, WrongSecret
from p2pdist.model import handshake
from p2pdist.model.handshake import (
    HELLO_BYTES_MAX,
    NO_PROOF,
    ClientHandshake,
    Hello,
    Refusal,
    ServerHandshake,
    Session,
    decode_hello,
)
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Place, Role
from tests.fakes.secrets import only

SECRET = b"the secret of the cluster"
NONCE = bytes(range(32))
CLIENT = Member(HostId("c" * 32), Role.PEER, Place("dc1", "r1"))
SERVER = Member(HostId("5" * 32), Role.PROXY, Place("dc1"))


@dataclass
class Ends:
    client: ClientHandshake
    server: ServerHandshake


def ends(server_secret: bytes = SECRET, client_features: int = 0, server_features: int = 0) -> Ends:
    return Ends(
        ClientHandshake(only(SECRET), CLIENT, os.urandom, client_features),
        ServerHandshake(only(server_secret), SERVER, os.urandom, server_features),
    )


def shake(both: Ends) -> tuple[Session, Session]:
    hello, proof = both.server.answer(both.client.hello)
    answer, at_client = both.client.finish(hello, proof)
    return at_client, both.server.finish(answer)


def test_both_ends_know_each_other_afterwards() -> None:
    at_client, at_server = shake(ends())

    assert at_client.member == SERVER
    assert at_server.member == CLIENT


def test_only_common_features_are_used() -> None:
    at_client, at_server = shake(ends(client_features=0b0110, server_features=0b0011))

    assert at_client.features == at_server.features == 0b0010


def test_a_server_without_the_secret_is_noticed() -> None:
    both = ends(server_secret=b"another secret, long enough")
    hello, proof = both.server.answer(both.client.hello)

    with pytest.raises(PeerFault, match="secret"):
        both.client.finish(hello, proof)


def test_a_client_without_the_secret_is_noticed() -> None:
    both = ends()
    both.server.answer(both.client.hello)

    with pytest.raises(PeerFault, match="secret"):
        both.server.finish(bytes(32))


def test_a_proof_cannot_be_replayed_on_another_connection() -> None:
    first, second = ends(), ends()
    hello, proof = first.server.answer(first.client.hello)
    answer, _ = first.client.finish(hello, proof)
    second.server.answer(first.client.hello)

    with pytest.raises(PeerFault, match="secret"):
        second.server.finish(answer)


def test_the_servers_proof_is_no_clients_proof() -> None:
    both = ends()
    _, proof = both.server.answer(both.client.hello)

    with pytest.raises(PeerFault, match="secret"):
        both.server.finish(proof)


def test_a_changed_identity_breaks_the_proof() -> None:
    both = ends()
    hello, proof = both.server.answer(both.client.hello)
    changed = hello.replace(b"dc1", b"dc2")

    with pytest.raises(PeerFault, match="secret"):
        both.client.finish(changed, proof)


def test_a_later_protocol_alone_is_refused_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "PROTOCOL_MIN", 7)
    monkeypatch.setattr(handshake, "PROTOCOL_MAX", 8)
    client = ClientHandshake(only(SECRET), CLIENT, os.urandom)
    monkeypatch.undo()
    server = ServerHandshake(only(SECRET), SERVER, os.urandom)
    hello, proof = server.answer(client.hello)

    with pytest.raises(PeerFault, match="they speak 1-1, we speak 7-8"):
        client.finish(hello, proof)


@pytest.mark.parametrize(("said", "heard"), [("full", "full"), ("of a later version", "other")])
def test_a_refused_client_hears_why_and_until_when(said: str, heard: str) -> None:
    both = ends()
    hello, proof = both.server.answer(both.client.hello, lambda member: Refusal(said, 30))

    with pytest.raises(LinkRefused) as caught:
        both.client.finish(hello, proof)

    assert (caught.value.reason, caught.value.retry_s) == (heard, 30)
    assert both.server.refusal == Refusal(said, 30)


def test_a_refusal_of_somebody_else_is_not_believed() -> None:
    both = ends(server_secret=b"another secret, long enough")
    hello, proof = both.server.answer(both.client.hello, lambda member: Refusal("full", 3600))

    with pytest.raises(PeerFault, match="secret"):
        both.client.finish(hello, proof)


@given(st.binary(max_size=HELLO_BYTES_MAX + 100))
def test_foreign_bytes_are_a_peers_fault(data: bytes) -> None:
    with pytest.raises(PeerFault):
        decode_hello(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": b"short"},
        {"member": Member(HostId("no id"), Role.PEER, Place("dc1"))},
        {"protocol_min": 0},
        {"refusal": Refusal("full", 86400)},
        {"refusal": Refusal("f" * 33, 30)},
        {"also": b"short"},
        {"also": bytes(33)},
    ],
)
def test_a_hello_out_of_form_is_refused(changes: dict[str, object]) -> None:
    values = {
        "protocol_min": 1,
        "protocol_max": 1,
        "features": 0,
        "member": CLIENT,
        "nonce": bytes(32),
    }
    hello = Hello(**{**values, **changes})  # type: ignore[arg-type]  # one of each

    with pytest.raises(PeerFault):
        decode_hello(msgspec.msgpack.encode(hello))


def test_a_client_that_leaves_a_server_with_another_secret_tells_it_why() -> None:
    both = ends(server_secret=b"another secret, long enough")
    hello, proof = both.server.answer(both.client.hello)
    with pytest.raises(WrongSecret):
        both.client.finish(hello, proof)

    with pytest.raises(WrongSecret):
        both.server.finish(NO_PROOF)


def test_both_ends_hear_the_wall_clock_of_the_other() -> None:
    both = Ends(
        ClientHandshake(only(SECRET), CLIENT, os.urandom, unix_ms=1_800_000_000_000),
        ServerHandshake(only(SECRET), SERVER, os.urandom, unix_ms=1_800_000_090_000),
    )

    at_client, at_server = shake(both)

    assert at_client.unix_ms == 1_800_000_090_000
    assert at_server.unix_ms == 1_800_000_000_000


def before_time() -> list[object]:
    """The fields of a hello of the version that told no time."""
    hello = msgspec.msgpack.encode(Hello(1, 1, 0, CLIENT, bytes(32), unix_ms=5))
    fields: list[object] = msgspec.msgpack.decode(hello)
    assert [fields.pop(), fields.pop(), fields.pop()] == [b"", b"", 5]
    return fields


def test_an_older_hello_tells_no_time() -> None:
    fields = before_time()

    assert decode_hello(msgspec.msgpack.encode(fields)).unix_ms == 0


@pytest.mark.parametrize("unix_ms", [-1, 1 << 54, 1.5, "now", float("nan")])
def test_a_time_that_is_none_is_refused(unix_ms: object) -> None:
    fields = before_time()

    with pytest.raises(PeerFault, match=r"malformed hello: .*\$\[7\]"):
        decode_hello(msgspec.msgpack.encode([*fields, unix_ms]))


OLD, NEW = SECRET, b"the secret that takes its place"
SETS = {"old": (OLD,), "old+new": (OLD, NEW), "new+old": (NEW, OLD), "new": (NEW,)}


def of_sets(client: tuple[bytes, ...], server: tuple[bytes, ...]) -> Ends:
    return Ends(
        ClientHandshake(only(*client), CLIENT, os.urandom),
        ServerHandshake(only(*server), SERVER, os.urandom),
    )


@pytest.mark.parametrize("server", SETS)
@pytest.mark.parametrize("client", SETS)
def test_who_has_a_secret_in_common_goes_by_the_clients_first(client: str, server: str) -> None:
    both = of_sets(SETS[client], SETS[server])
    common = [secret for secret in SETS[client] if secret in SETS[server]]
    if not common:
        hello, proof = both.server.answer(both.client.hello)
        with pytest.raises(WrongSecret):
            both.client.finish(hello, proof)
        with pytest.raises(WrongSecret):
            both.server.finish(NO_PROOF)
        return

    at_client, at_server = shake(both)

    assert at_client.mark == at_server.mark == only(common[0]).marks[0]
    assert both.client.hellos == both.server.hellos != b""


def test_a_refusal_is_believed_under_the_second_secret_as_well() -> None:
    both = of_sets((NEW,), (OLD, NEW))
    hello, proof = both.server.answer(both.client.hello, lambda member: Refusal("full", 30))

    with pytest.raises(LinkRefused):
        both.client.finish(hello, proof)


@pytest.mark.parametrize("client", [(OLD,), (NEW,)])
def test_nobody_changes_a_hello_with_two_proofs(client: tuple[bytes, ...]) -> None:
    """Each byte of it is under both proofs, but for the second one under itself."""
    both = of_sets(client, (OLD, NEW))
    hello, proof = both.server.answer(both.client.hello)
    both.client.finish(hello, proof)

    for at in range(len(hello)):
        changed = bytearray(hello)
        changed[at] ^= 1
        with pytest.raises(PeerFault):
            both.client.finish(bytes(changed), proof)


def test_the_second_proof_is_neither_a_first_one_nor_a_clients() -> None:
    both = of_sets((NEW,), (OLD, NEW))
    hello, _ = both.server.answer(both.client.hello)
    also = decode_hello(hello).also

    with pytest.raises(WrongSecret):
        of_sets((NEW,), (NEW,)).client.finish(hello, also)
    with pytest.raises(WrongSecret):
        both.server.finish(also)


def test_a_client_says_nothing_of_its_secrets_before_the_server_has() -> None:
    nothing: list[bytes] = []
    for each in SETS.values():
        client = ClientHandshake(only(*each), CLIENT, bytes)
        nothing.append(client.hello)

    assert len(set(nothing)) == 1


# --- the release before this one: one secret, and no word of another ------------------------------


def hello_before(nonce: bytes) -> bytes:
    fields: list[object] = msgspec.msgpack.decode(
        msgspec.msgpack.encode(Hello(1, 1, 0, CLIENT, nonce, unix_ms=5, instance=b"i"))
    )
    assert fields.pop() == b""
    return msgspec.msgpack.encode(fields)


def proof_before(word: bytes, client: bytes, server: bytes) -> bytes:
    both = b"".join((len(client).to_bytes(4), client, len(server).to_bytes(4), server))
    return hmac.digest(OLD, word + both, "sha256")


@pytest.mark.parametrize("ours", [(OLD,), (OLD, NEW), (NEW, OLD)])
def test_a_server_of_before_is_dialled_by_any_host_that_has_its_secret(
    ours: tuple[bytes, ...],
) -> None:
    client, server_hello = ClientHandshake(only(*ours), CLIENT, os.urandom), hello_before(NONCE)

    proof, session = client.finish(
        server_hello, proof_before(b"server", client.hello, server_hello)
    )

    assert proof == proof_before(b"client", client.hello, server_hello)
    assert session.mark == only(OLD).marks[0]


@pytest.mark.parametrize(("ours", "taken"), [((OLD,), 1), ((OLD, NEW), 1), ((NEW, OLD), 0)])
def test_a_client_of_before_looks_at_the_first_secret_alone(
    ours: tuple[bytes, ...], taken: bool
) -> None:
    server, client_hello = ServerHandshake(only(*ours), SERVER, os.urandom), hello_before(NONCE)

    hello, proof = server.answer(client_hello)

    assert (proof == proof_before(b"server", client_hello, hello)) == taken
    if taken:
        assert server.finish(proof_before(b"client", client_hello, hello)).member == CLIENT
