"""What OpenSSL says of a handshake that failed, in words."""

from __future__ import annotations

import ssl

import pytest

from p2pdist.exchange.tls_refusal import refusal_text


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("TLSV1_ALERT_UNKNOWN_CA", "the other end does not believe the CA of our certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "our certificate has expired by the other end's clock"),
        ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "the other end asks for a certificate"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", "the other end shows no certificate"),
        ("NO_SUITABLE_KEY_SHARE", "TLS failed: no suitable key share"),
    ],
)
def test_reasons_are_said_in_words(reason: str, says: str) -> None:
    error = ssl.SSLError(1, f"[SSL: {reason}] something (_ssl.c:1006)")
    error.reason = reason

    assert refusal_text(error) == says


def test_without_a_reason_the_text_stands() -> None:
    error = ssl.SSLError(1, "[SSL: NO_SUITABLE_KEY_SHARE] no suitable key share (_ssl.c:1006)")

    assert refusal_text(error).startswith("TLS failed: ")
