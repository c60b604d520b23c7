from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from p2pdist.model.ids import HostId
from p2pdist.registry.ports import is_of_proxy
from p2pdist.registry.serving.accounts import account_of
from tests.process.identities import TestCa

ALICE, BOB = HostId("a" * 32), HostId("b" * 32)


def shown(ca: TestCa, host_id: HostId) -> bytes:
    return ssl.PEM_cert_to_DER_cert(ca.issue("peer", host_id).certificate.decode())


def test_a_host_with_a_certificate_is_itself_wherever_it_is(tmp_path: Path) -> None:
    ca = TestCa(tmp_path)
    accounts = {account_of(shown(ca, ALICE), address) for address in ("10.0.0.1", "10.0.0.2")}

    assert len(accounts) == 1
    assert account_of(shown(ca, ALICE), "10.0.0.1") in accounts, "a new certificate changes nothing"
    assert account_of(shown(ca, BOB), "10.0.0.1") not in accounts


@pytest.mark.parametrize(("role", "is_proxy"), [("peer", False), ("proxy", True)])
def test_a_certified_proxy_is_known_as_one(tmp_path: Path, role: str, is_proxy: bool) -> None:
    pem = TestCa(tmp_path).issue(role, ALICE).certificate.decode()

    assert is_of_proxy(account_of(ssl.PEM_cert_to_DER_cert(pem), "10.0.0.1")) is is_proxy
    assert not is_of_proxy(account_of(None, "10.0.0.1"))


def test_all_certificates_of_nobody_are_one_caller(tmp_path: Path) -> None:
    assert account_of(b"no certificate", "10.0.0.1") == account_of(b"nor this", "10.0.0.2")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
    ],
)
def test_others_are_their_address_or_half_of_it(one: str, other: str, same: bool) -> None:
    assert (account_of(None, one) == account_of(None, other)) is same
