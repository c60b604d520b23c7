"""Makes the CA of a cluster and the certificates of its hosts."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2pdist.errors import ConfigError
from p2pdist.model.control import CERTIFICATE_BYTES_MAX
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.process.certificates import (
    CA_FILE_BYTES_MAX,
    DAY_S,
    Certificate,
    described,
    read_cas,
)
from p2pdist.process.files import private_directory, write_whole
from p2pdist.process.secret_files import KEY_FILE_BYTES_MAX, read_secret_file, read_small_file

CA_NAME: Final = "ca.pem"
CA_KEY_NAME: Final = "ca.key"
CERT_NAME: Final = "cert.pem"
KEY_NAME: Final = "key.pem"
CA_DAYS: Final = 3650
DAYS: Final = 30
DAYS_MAX: Final = 397
"""One that is lost without a word to anybody is good until it ends."""
LIFE_S_MAX: Final = DAYS_MAX * DAY_S
BACKDATED_S: Final = 300.0
"""A host whose clock is behind believes a fresh certificate, too."""

# Curve P-256: every TLS library takes it, those of FIPS builds too, and a proof costs 30 µs.
_CURVE: Final = ec.SECP256R1()


@dataclass(frozen=True, slots=True)
class Ca:
    """A CA with its key, in memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes
    says: Certificate


def new_ca(now_s: float) -> Ca:
    """Make a CA that may sign hosts' certificates and no further CA."""
    key = ec.generate_private_key(_CURVE)
    name = _name(f"p2pdist CA {secrets.token_hex(4)}")
    builder = _builder(name, name, key.public_key(), now_s, now_s + CA_DAYS * DAY_S)
    builder = builder.add_extension(x509.BasicConstraints(True, 0), critical=True)
    builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    )
    return Ca(builder.sign(key, SHA256()), key)


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(_CURVE)


def issue(ca: Ca, identity: Identity, *, days: int, now_s: float) -> Issued:
    """Make a key and its certificate for `identity`, which ends with the CA's at the latest."""
    key = new_key()
    certificate = sign(ca, identity, key.public_key(), life_s=days * DAY_S, now_s=now_s)
    return Issued(certificate.public_bytes(Encoding.PEM), private_pem(key), described(certificate))


def sign(
    ca: Ca, identity: Identity, key: ec.EllipticCurvePublicKey, *, life_s: float, now_s: float
) -> x509.Certificate:
    """Certify `key` for `identity`, from `BACKDATED_S` ago to the CA's end at the latest."""
    ends_s = min(now_s + life_s, ca.certificate.not_valid_after_utc.timestamp())
    builder = _builder(_name(str(identity)), ca.certificate.subject, key, now_s, ends_s)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity.uri)])
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if identity.role is not IdentityRole.OPERATOR:
        purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(False, None), True),
        (_usage(signs_certificates=False), True),
        (x509.ExtendedKeyUsage(purposes), False),
        (names, False),
        (x509.SubjectKeyIdentifier.from_public_key(key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key()), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(ca.key, SHA256())


def make_ca(directory: Path, now_s: float) -> Certificate:
    """Write a fresh CA to a directory of ours alone; raise ConfigError where there is one."""
    private_directory(directory)
    for name in (CA_KEY_NAME, CA_NAME):
        if (directory / name).exists():
            raise ConfigError(f"{directory / name} exists already and is not replaced")
    ca = new_ca(now_s)
    # The certificate comes last: where it is, the key is whole.
    write_whole(directory / CA_KEY_NAME, private_pem(ca.key), replace=False)
    write_whole(directory / CA_NAME, ca.pem, mode=0o644, replace=False)
    return described(ca.certificate)


def read_ca(directory: Path) -> Ca:
    """Read what `make_ca` wrote; raise ConfigError, with the file, for anything else."""
    try:
        key_pem = read_secret_file(directory / CA_KEY_NAME, KEY_FILE_BYTES_MAX)
        pem, _ = read_small_file(directory / CA_NAME, CA_FILE_BYTES_MAX)
    except ValueError as error:
        raise ConfigError(f"{error}; `p2pdist ca init --dir {directory}` makes a CA") from None
    try:
        key = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{directory / CA_KEY_NAME} is no private key in PEM: {error}") from None
    try:
        certificate = read_cas(pem)[0]
    except ValueError as error:
        raise ConfigError(f"{directory / CA_NAME} is no CA: {error}") from None
    fits = isinstance(key, ec.EllipticCurvePrivateKey) and certificate.public_key() == (
        key.public_key()
    )
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not fits:
        raise ConfigError(f"{directory}: {CA_KEY_NAME} is not the key of {CA_NAME}")
    return Ca(certificate, key)


def issue_files(
    ca: Ca,
    directory: Path,
    role: IdentityRole,
    host_id: HostId | None,
    *,
    days: int,
    now_s: float,
    revoked: Callable[[HostId], str] = lambda host_id: "",
) -> Certificate:
    """Write `ca.pem`, `cert.pem` and a fresh `key.pem`; return what the certificate says.

    Who has a certificate there gets a new one for the same host id; without one `host_id`, or a
    made-up one, is it. `revoked`: why a host is certified no more; empty: it may be. Raises
    ConfigError where it is, and where the certificate there is for somebody else.
    """
    if fault := described(ca.certificate).fault_at(now_s):
        raise ConfigError(f"the certificate of the CA {fault}; `p2pdist ca init` makes another CA")
    there = _held(directory / CERT_NAME)
    if there is not None and (there.role is not role or host_id not in (None, there.host_id)):
        raise ConfigError(f"{directory / CERT_NAME} is for {there}; choose another directory")
    kept = host_id if there is None else there.host_id
    if kept is not None and (why := revoked(kept)):
        raise ConfigError(f"{why}, for good; another directory gets a new host id")
    identity = Identity(role, kept or HostId(secrets.token_hex(16)))
    made = issue(ca, identity, days=days, now_s=now_s)
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A kill in between leaves a key that does not fit, which is found when it is read.
    write_whole(directory / CA_NAME, ca.pem, mode=0o644)
    write_whole(directory / KEY_NAME, made.key)
    write_whole(directory / CERT_NAME, made.certificate, mode=0o644)
    return made.says


def show_file(path: Path) -> list[Certificate]:
    """Return what the certificates in a file say; raise ConfigError, with what is wrong."""
    try:
        pem, _ = read_small_file(path, CA_FILE_BYTES_MAX)
        return [described(one) for one in x509.load_pem_x509_certificates(pem)]
    except ValueError as error:
        text = str(error)
        raise ConfigError(text if str(path) in text else f"{path}: {text}") from None


def _held(path: Path) -> Identity | None:
    if not path.exists():
        return None
    try:
        pem, _ = read_small_file(path, CERTIFICATE_BYTES_MAX * 2)
        return described(x509.load_pem_x509_certificate(pem)).identity
    except ValueError as error:
        raise ConfigError(f"{path} is there and none of ours ({error}); move it away") from None


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now_s: float,
    ends_s: float,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(now_s - BACKDATED_S, UTC))
        .not_valid_after(datetime.fromtimestamp(ends_s, UTC))
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
