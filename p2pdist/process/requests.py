"""Requests for certificates: made by who has the key, signed by who has the CA."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

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
    return _request(new_key())


def request_of(key_pem: bytes) -> Request:
    """Ask once more for a key that was made before; raise ValueError for one of another kind."""
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(f"no private key in PEM: {error}") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("a key of another kind than ours")
    return _request(key)


def _request(key: ec.EllipticCurvePrivateKey) -> Request:
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return Request(private_pem(key), request.sign(key, SHA256()).public_bytes(Encoding.DER))


def sign_request(ca: Ca, identity: Identity, der: bytes, *, life_s: float, now_s: float) -> bytes:
    """Return a certificate in DER for `identity` and the key of a request, of which nothing else is
    believed. Raises ValueError for one that is malformed, of another kind of key than ours, or not
    signed by its key."""
    made = sign(ca, identity, proved_key(der), life_s=life_s, now_s=now_s)
    return made.public_bytes(Encoding.DER)


def key_mark(der: bytes) -> bytes:
    """Return what tells the key of a request from all others. Raises as `sign_request` does."""
    key = proved_key(der).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).digest()


def proved_key(der: bytes) -> ec.EllipticCurvePublicKey:
    """Return the key of a request, which who asks has. Raises as `sign_request` does."""
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
    return key


def _proves(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False
