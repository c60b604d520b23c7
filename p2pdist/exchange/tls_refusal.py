"""Why a TLS handshake came to nothing, in words."""

from __future__ import annotations

import ssl
from typing import Final

# What the other end's alert means, by OpenSSL's name of it.
_ALERTS: Final = {
    "ALERT_UNKNOWN_CA": "the other end does not believe the CA of our certificate",
    "ALERT_CERTIFICATE_EXPIRED": "our certificate has expired by the other end's clock",
    "ALERT_BAD_CERTIFICATE": "the other end does not take our certificate",
    "ALERT_UNSUPPORTED_CERTIFICATE": "the other end does not take our certificate",
    "ALERT_CERTIFICATE_REQUIRED": "the other end asks for a certificate",
}


def refusal_text(error: ssl.SSLError) -> str:
    """Say what went wrong with a handshake, in words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the other end's certificate is not believed: {error.verify_message}"
    reason = getattr(error, "reason", None) or ""  # only OpenSSL gives one
    for name, text in _ALERTS.items():
        if reason.endswith(name):
            return text
    if "PEER_DID_NOT_RETURN_A_CERTIFICATE" in reason:
        return "the other end shows no certificate"
    return f"TLS failed: {reason.replace('_', ' ').lower() or error}"
