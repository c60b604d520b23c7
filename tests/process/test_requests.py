"""Requests for certificates are hostile: their key is taken, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.process.ca import new_ca
from p2pdist.process.certificates import described
from p2pdist.process.requests import new_request, sign_request

NOW_S = 1_800_000_000.0
WHO = Identity(IdentityRole.PEER, HostId("a" * 32))
CA = new_ca(NOW_S)


def signed(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(sign_request(CA, WHO, der, life_s=3600.0, now_s=NOW_S))


def test_the_key_is_certified_for_who_asks() -> None:
    request = new_request()

    made = signed(request.der)

    says = described(made)
    assert says.identity == WHO
    assert says.ends_s == NOW_S + 3600
    assert made.public_key() == x509.load_der_x509_csr(request.der).public_key()
    made.verify_directly_issued_by(CA.certificate)
    assert b"PRIVATE" in request.key
    assert b"PRIVATE" not in request.der


def test_what_else_a_request_says_is_not_believed() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CA")])
    uri = x509.UniformResourceIdentifier(f"p2pdist://tracker/{'b' * 32}")
    wish = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(x509.SubjectAlternativeName([uri]), critical=False)
        .sign(key, SHA256())
    )

    made = signed(wish.public_bytes(Encoding.DER))

    assert described(made).identity == WHO
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert made.subject.rfc4514_string() == f"CN={WHO}"


def request_of(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, SHA256()).public_bytes(Encoding.DER)


def forged() -> bytes:
    der = bytearray(new_request().der)
    der[-1] ^= 1
    return bytes(der)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: b"", "malformed"),
        (lambda: b"\x30\x03\x02\x01\x01", "malformed"),
        (lambda: new_request().der[:-20], "malformed"),
        (lambda: bytes(2000), "2000 bytes"),
        (lambda: request_of(ec.generate_private_key(ec.SECP384R1())), "curve P-256"),
        (lambda: request_of(rsa.generate_private_key(65537, 2048)), "curve P-256"),
        (forged, "not signed by its key"),
    ],
)
def test_what_is_none_is_refused(make: Callable[[], bytes], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        signed(make())
