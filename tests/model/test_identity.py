"""The URI that says who a certificate is for."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.identity import Identity, IdentityRole, identity_among, parse_identity
from p2pdist.model.ids import HostId
from p2pdist.model.members import Member, Place, Role

ID = HostId("0123456789abcdef" * 2)


@pytest.mark.parametrize("role", list(IdentityRole))
def test_what_is_written_is_read(role: IdentityRole) -> None:
    identity = Identity(role, ID)

    assert identity.uri == f"p2pdist://{role}/{ID}"
    assert parse_identity(identity.uri) == identity


@pytest.mark.parametrize(
    "uri",
    [
        f"p2pdist://root/{ID}",
        f"p2pdist://peer{ID}",
        f"p2pdist://peer/{ID}/",
        f"p2pdist://peer/{ID}?role=proxy",
        f"p2pdist://peer/{ID}\n",
        f"p2pdist://peer/{ID.upper()}",
        f"P2PDIST://peer/{ID}",
        f"spiffe://peer/{ID}",
        f"p2pdist://proxy@peer/{ID}",
        "p2pdist://peer/",
        "p2pdist:///",
        "",
    ],
)
def test_any_other_form_is_none(uri: str) -> None:
    with pytest.raises(ValueError, match=r"not an? "):
        parse_identity(uri)


@given(st.text(max_size=80))
def test_no_text_does_anything_else(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_identity(text).uri == text


def test_a_certificate_names_one_identity_whatever_else_it_names() -> None:
    uri = f"p2pdist://peer/{ID}"

    assert identity_among(["https://example.org", uri]).host_id == ID
    for uris in ([], ["https://example.org"], [uri, uri], [uri, f"P2PDIST://proxy/{ID}"]):
        with pytest.raises(ValueError, match=r"names \d identities"):
            identity_among(uris)


def test_it_is_held_against_what_a_hello_says() -> None:
    peer = Member(ID, Role.PEER, Place("dc1"))

    assert Identity(IdentityRole.PEER, ID).against(peer) == ""
    assert "for a proxy" in Identity(IdentityRole.PROXY, ID).against(peer)
    assert "for an operator" in Identity(IdentityRole.OPERATOR, ID).against(peer)
    assert "for host aaaa" in Identity(IdentityRole.PEER, HostId("a" * 32)).against(peer)
