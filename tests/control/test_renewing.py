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
from p2pdist.model.ids import HostId
from p2pdist.process.identity_holder import IdentityHolder
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
