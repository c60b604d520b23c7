"""What a daemon does with the answer to its request for a certificate, and without one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.control.renewing import Renewing
from p2pdist.model.control import Renewed
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.model.members import Role
from p2pdist.process import clock
from p2pdist.process.ca import new_ca
from p2pdist.process.certificates import DAY_S
from p2pdist.process.host_identity import read_identity
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.requests import sign_request
from tests.process.identities import TestCa

ID = HostId("a" * 32)
Ask = Callable[[bytes], Awaitable[Renewed | None]]


@pytest.fixture
def ca(tmp_path: Path) -> TestCa:
    return TestCa(tmp_path)


def held(ca: TestCa) -> IdentityHolder:
    return IdentityHolder(ca.identity("peer", ID, begun_days=25))


def answering(ca: TestCa, *, certificate: bool) -> Ask:
    """A tracker that sends another certificate than the one that was asked for, or none at all."""

    async def ask(request: bytes) -> Renewed | None:
        issued = ca.issue("peer", ID)
        der = x509.load_pem_x509_certificate(issued.certificate).public_bytes(Encoding.DER)
        return Renewed(
            0, der if certificate else b"none", [ca.ca.certificate.public_bytes(Encoding.DER)]
        )

    return ask


@pytest.mark.parametrize("told_of", [True, False])
async def test_another_ca_that_was_put_there_meanwhile_stays_unless_the_tracker_has_others(
    ca: TestCa, told_of: bool
) -> None:
    """A tracker answers itself with what it believed before it saw its operator's file."""
    holder, second = held(ca), new_ca(clock.unix_s())
    place = holder.current.directory / "ca.pem"
    der = [one.certificate.public_bytes(Encoding.DER) for one in (ca.ca, second)]

    async def ask(request: bytes) -> Renewed | None:
        place.write_bytes(ca.ca.pem + second.pem)
        who = Identity(IdentityRole.PEER, ID)
        made = sign_request(ca.ca, who, request, life_s=30 * DAY_S, now_s=clock.unix_s())
        return Renewed(0, made, der[::-1] if told_of else der[:1])

    await Renewing(holder, ask, lambda: True, Random(1)).look()

    assert holder.renewals["done"] == 1
    assert place.read_bytes() == (second.pem + ca.ca.pem if told_of else ca.ca.pem + second.pem)
    assert list(holder.current.cas) == (der[::-1] if told_of else der)


@pytest.mark.parametrize(
    ("role", "host_id", "begun_s", "life_s", "says"),
    [
        ("peer", ID, 0.0, 4 * DAY_S, "ends no later"),
        ("peer", HostId("b" * 32), 0.0, 30 * DAY_S, f"a certificate for peer {'b' * 32}"),
        ("proxy", ID, 0.0, 30 * DAY_S, "is for proxy"),
        ("peer", ID, 3600.0, 30 * DAY_S, "is not valid for another"),
    ],
)
async def test_a_certificate_that_is_not_our_next_one_is_refused(
    ca: TestCa, role: str, host_id: HostId, begun_s: float, life_s: float, says: str
) -> None:
    """For the key that was asked for, of our CA, and yet."""
    holder = held(ca)
    first, who = holder.current, Identity(IdentityRole(role), host_id)

    async def ask(request: bytes) -> Renewed | None:
        now_s = clock.unix_s() + begun_s
        made = sign_request(ca.ca, who, request, life_s=life_s, now_s=now_s)
        return Renewed(0, made, [ca.ca.certificate.public_bytes(Encoding.DER)])

    await Renewing(holder, ask, lambda: True, Random(1)).look()

    assert says in holder.renewal
    assert holder.current is first
    assert read_identity(first.directory, Role.PEER).says == first.says


async def silent(_: bytes) -> Renewed | None:
    return None


@pytest.mark.parametrize("certificate", [True, False])
async def test_an_answer_that_is_no_good_changes_nothing(ca: TestCa, certificate: bool) -> None:
    holder = held(ca)
    first, files = holder.current, sorted(holder.current.directory.iterdir())
    ask = answering(ca, certificate=certificate)

    await Renewing(holder, ask, lambda: True, Random(1)).look()
    await holder.look()

    assert holder.current is first
    assert holder.trouble == ""
    assert sorted(first.directory.iterdir()) == files
    assert "next try" in holder.renewal


async def test_silence_is_a_failure(ca: TestCa) -> None:
    holder = held(ca)
    await Renewing(holder, silent, lambda: True, Random(1)).look()
    assert holder.renewal.startswith("the tracker did not answer; next try")


async def test_where_nothing_can_be_written_nothing_is_asked(
    ca: TestCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = held(ca)
    monkeypatch.setattr("p2pdist.control.renewing.can_write", lambda _: False)
    await Renewing(holder, silent, lambda: True, Random(1)).look()
    assert "may not write" in holder.renewal
