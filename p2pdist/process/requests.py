"""Requests for certificates: made by who has the key, signed by who has the CA."""

from __future__ import annotations

from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from p2pdist.model.control import REQUEST_BYTES_MAX
from p2pdist.model.identity import Identity
from p2pdist.process.ca import Ca, new_key, private_pem, sign


@dataclass(frozen=True, slots=True)
class Request:
    """A fresh key, which stays where it was made, and what is shown of it."""

    key: bytes = field(repr=False)
    """PEM."""
    der: bytes
    """PKCS #10: the public key, signed by itself."""


def new_request() -> Request:
    """Make a key and ask for it. It names nobody: who it is for is not for the asker to say."""
    key = new_key()
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return Request(private_pem(key), request.sign(key, SHA256()).public_bytes(Encoding.DER))


def sign_request(ca: Ca, identity: Identity, der: bytes, *, life_s: float, now_s: float) -> bytes:
    """Return a certificate in DER for `identity` and the key of a request, of which nothing else is
    believed. Raises ValueError for one that is malformed, of another kind of key than ours, or not
    signed by its key."""
    if len(der) > REQUEST_BYTES_MAX:
        raise ValueError(f"a request of {len(der)} bytes")
    try:
        request = x509.load_der_x509_csr(der)
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError(f"malformed request: {error}") from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("a request for another key than one of curve P-256")
    if not _proves(request):
        raise ValueError("a request that is not signed by its key")
    return sign(ca, identity, key, life_s=life_s, now_s=now_s).public_bytes(Encoding.DER)


def _proves(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
