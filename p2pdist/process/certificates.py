"""Certificates as they are read: who one is for, until when, by whom."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2pdist.model.control import CAS_MAX, CERTIFICATE_BYTES_MAX
from p2pdist.model.identity import Identity, identity_among

CA_FILE_BYTES_MAX: Final = 64 * 1024
DAY_S: Final = 86400.0


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one certificate says; moments are Unix seconds."""

    identity: Identity | None
    """None: of a CA."""
    begins_s: float
    ends_s: float
    issuer: str
    subject: str

    @property
    def renew_from_s(self) -> float:
        """From when on it is to be issued anew: a third of its life is left for that."""
        return self.begins_s + (self.ends_s - self.begins_s) * 2 / 3

    def fault_at(self, now_s: float) -> str:
        """Return what is wrong with it at that moment; empty: nothing."""
        if now_s < self.begins_s:
            return f"is not valid for another {span_text(self.begins_s - now_s)}: is the clock off?"
        if now_s >= self.ends_s:
            return f"expired {span_text(now_s - self.ends_s)} ago"
        return ""


def span_text(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds >= 2 * DAY_S:
        return f"{seconds / DAY_S:.0f} days"
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"


def identity_in(der: bytes) -> Identity:
    """Return who a certificate is for; raise ValueError for one that is no host's of ours.

    Neither chain nor dates are looked at. A quarter of what `described` costs: a tracker does it
    for each connection.
    """
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise ValueError(f"a certificate of {len(der)} bytes")
    found = _identity_or_ca(x509.load_der_x509_certificate(der))
    if found is None:
        raise ValueError("it is the certificate of a CA")
    return found


def described(certificate: x509.Certificate) -> Certificate:
    """Say what it says; raise ValueError for a host's certificate that names no identity of ours,
    or may be used for something else than ours."""
    return Certificate(
        _identity_or_ca(certificate),
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        certificate.issuer.rfc4514_string(),
        certificate.subject.rfc4514_string(),
    )


def _identity_or_ca(certificate: x509.Certificate) -> Identity | None:
    try:
        ca = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        return None if ca else _identity(certificate)
    except x509.ExtensionNotFound as error:
        raise ValueError(f"the certificate lacks {error.oid._name}") from None
    except (x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise ValueError(f"malformed certificate: {error}") from None


def _identity(certificate: x509.Certificate) -> Identity:
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    purposes = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    if not usage.digital_signature or usage.key_cert_sign:
        raise ValueError("the certificate is not for a signature in TLS")
    if ExtendedKeyUsageOID.CLIENT_AUTH not in purposes:
        raise ValueError("the certificate is not for a client of TLS")
    return identity_among(names.get_values_for_type(x509.UniformResourceIdentifier))


def fingerprint(der: bytes) -> bytes:
    """What tells one certificate from all others."""
    return hashlib.sha256(der).digest()


def read_cas(pem: bytes) -> list[x509.Certificate]:
    """Read the CAs to believe; raise ValueError for anything else, for none and for too many."""
    found = x509.load_pem_x509_certificates(pem)
    if len(found) > CAS_MAX:
        raise ValueError(f"{len(found)} certificates, more than {CAS_MAX}")
    for one in found:
        if described(one).identity is not None:
            raise ValueError(f"{one.subject.rfc4514_string()} is no CA")
    return found


def issued_by(certificate: x509.Certificate, cas: list[x509.Certificate]) -> bool:
    """One of `cas` signed it itself: there is nobody in between."""
    for ca in cas:
        try:
            certificate.verify_directly_issued_by(ca)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return True
    return False
