"""The identity of a daemon as its files say it: its certificate, and what it speaks TLS with."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from p2pdist.errors import ConfigError, PeerFault
from p2pdist.model.control import CERTIFICATE_BYTES_MAX
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.members import Member, Role
from p2pdist.process.ca import CA_NAME, CERT_NAME, KEY_NAME
from p2pdist.process.certificates import (
    CA_FILE_BYTES_MAX,
    Certificate,
    described,
    identity_in,
    issued_by,
    read_cas,
)
from p2pdist.process.files import Mark, mark_of
from p2pdist.process.identity_files import newest_in
from p2pdist.process.revocation_keeper import RevocationKeeper, revocation_keeper
from p2pdist.process.revoked_hosts import RevokedHosts
from p2pdist.process.secret_files import KEY_FILE_BYTES_MAX, read_secret_file, read_small_file
from p2pdist.settings import Settings

Marks = tuple[Mark | None, ...]


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """Who this daemon is. Both contexts speak TLS 1.3 alone, show the certificate and believe what
    the CAs of the cluster signed: names of hosts count for nothing, roles and host ids do."""

    identity: Identity
    says: Certificate
    required: bool
    """Nobody who has no identity is spoken to."""
    client: ssl.SSLContext = field(repr=False)
    server: ssl.SSLContext = field(repr=False)
    proxies: ssl.SSLContext = field(repr=False)
    """As `client`, for whoever believes a proxy only: it is for libraries that ask nothing more."""
    trackers: ssl.SSLContext = field(repr=False)
    """The same for trackers."""
    cas: tuple[bytes, ...] = field(repr=False)
    """Those that are believed, in DER."""
    revoked: RevokedHosts = field(repr=False)
    """Whose certificates count for nothing; it grows."""
    directory: Path
    seen: Marks
    """What the files were when they were read."""

    def shown(self, der: bytes) -> Identity:
        """Return who the other end's certificate is for; raise PeerFault for one that counts for
        nothing. That a CA of ours issued it, and its dates, TLS has seen to."""
        return identity_shown(der, self.revoked)

    def against(self, der: bytes, member: Member) -> str:
        """Return why the certificate of the other end is not for `member`; empty: it is."""
        try:
            return self.shown(der).against(member)
        except PeerFault as error:
            return str(error)


def host_identity(
    settings: Settings, role: Role, keeper: RevocationKeeper | None = None
) -> HostIdentity | None:
    """Return the identity of this host's daemon of `role`, None where none is set, and whom this
    host knows to be revoked. Blocking.

    Its dates are not looked at. `keeper`: who goes on to keep those. Raises ConfigError, with the
    setting, the file and the fix, for one that is no good.
    """
    directory: Path | None = getattr(settings, role.value).identity_dir
    required = settings.cluster.require_identity
    setting = f"{role.value}.identity_dir"
    if directory is None:
        if required:
            raise ConfigError(f"cluster.require_identity is set, but {setting} is not")
        return None
    keeper = keeper or revocation_keeper(settings, role)
    try:
        own = read_identity(directory, role, required=required, revoked=keeper.hosts)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    keeper.load(own.cas)
    return own


def read_identity(
    directory: Path,
    role: Role | IdentityRole,
    *,
    required: bool = False,
    revoked: RevokedHosts | None = None,
) -> HostIdentity:
    """Read `ca.pem`, `cert.pem` and `key.pem`; raise ValueError, with the file and the fix.

    Its dates are for those who use it: they change while nothing else does. `revoked`: whose
    certificates are not to be believed, now and later; None: all are.
    """
    revoked = RevokedHosts() if revoked is None else revoked
    seen, place = seen_in(directory), newest_in(directory)
    anew = f"p2pdist ca issue --role {role.value} --out {directory}"
    cert_path, key_path, ca_path = (place / name for name in (CERT_NAME, KEY_NAME, CA_NAME))
    key_pem = read_secret_file(key_path, KEY_FILE_BYTES_MAX)
    cert_pem, _ = read_small_file(cert_path, CERTIFICATE_BYTES_MAX * 2)
    ca_pem, status = read_small_file(ca_path, CA_FILE_BYTES_MAX)
    if status.st_mode & 0o022:  # whoever may add a CA here is anybody
        raise ValueError(f"{ca_path} may be changed by others; run: chmod go-w {ca_path}")
    try:
        cas = read_cas(ca_pem)
    except ValueError as error:
        raise ValueError(f"{ca_path} is no CA: {error}") from None
    try:
        certificate = x509.load_pem_x509_certificate(cert_pem)
        says = described(certificate)
    except ValueError as error:
        raise ValueError(f"{cert_path} is no certificate of ours: {error}") from None
    if says.identity is None or says.identity.role.value != role.value:
        wanted = "an operator" if role is IdentityRole.OPERATOR else f"a {role.value}"
        raise ValueError(f"{cert_path} is for {says.identity or 'a CA'}, not for {wanted}")
    if not issued_by(certificate, cas):
        raise ValueError(f"{cert_path} was not issued by a CA in {ca_path}; issue both: {anew}")
    if not _fits(certificate, key_pem):
        raise ValueError(f"{key_path} is not the key of {cert_path}; issue both: {anew}")
    told = tuple(ca.public_bytes(Encoding.DER) for ca in cas)
    client, server, proxies, trackers = (_context(kind, place, ca_pem) for kind in _KINDS)
    proxies.sslobject_class = _with_role(IdentityRole.PROXY, revoked)
    trackers.sslobject_class = _with_role(IdentityRole.TRACKER, revoked)
    contexts = (client, server, proxies, trackers)
    return HostIdentity(says.identity, says, required, *contexts, told, revoked, directory, seen)


def seen_in(directory: Path) -> Marks:
    """Tell apart what lies there at two moments, without reading it. Blocking."""
    place = newest_in(directory)
    return tuple(mark_of(place / name) for name in (CA_NAME, CERT_NAME, KEY_NAME))


def _with_role(role: IdentityRole, revoked: RevokedHosts) -> type[ssl.SSLObject]:
    """What believes the other end only if its certificate is for `role`, before it says a word."""

    class WithRole(ssl.SSLObject):
        def do_handshake(self) -> None:
            super().do_handshake()
            if why := _not_of(role, self.getpeercert(binary_form=True) or b"", revoked):
                # What speaks TLS for us hears of nothing else.
                error = ssl.SSLCertVerificationError()
                error.verify_message = why
                raise error

    return WithRole


def _not_of(role: IdentityRole, der: bytes, revoked: RevokedHosts) -> str:
    try:
        shown = identity_shown(der, revoked)
    except PeerFault as error:
        return str(error)
    return "" if shown.role is role else f"it is for {shown}, not for a {role}"


# Of `client`, `server`, `proxies`, `trackers`.
_KINDS = (ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER, *2 * (ssl.PROTOCOL_TLS_CLIENT,))


def identity_shown(der: bytes, revoked: RevokedHosts) -> Identity:
    """Return who a certificate is for, see `HostIdentity.shown`."""
    try:
        shown = identity_in(der)
    except ValueError as error:
        raise PeerFault(f"no certificate of ours: {error}") from None
    if why := revoked.why(shown.host_id):
        raise PeerFault(why)
    return shown


def _fits(certificate: x509.Certificate, key_pem: bytes) -> bool:
    try:
        key: Any = load_pem_private_key(key_pem, password=None)
    except (ValueError, TypeError):
        return False
    raw = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    same: bool = certificate.public_key().public_bytes(*raw) == key.public_key().public_bytes(*raw)
    return same


def joiners_context(own: HostIdentity) -> ssl.SSLContext:
    """What to speak TLS with to hosts that have no certificate yet. Blocking for two reads; raises
    ValueError where the files are no good any more."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    place = newest_in(own.directory)
    try:
        context.load_cert_chain(place / CERT_NAME, place / KEY_NAME)
    except OSError as error:  # ssl.SSLError is one
        raise ValueError(f"{place} is of no use for TLS: {error}") from None
    return context


def _context(kind: int, directory: Path, ca_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # who it is says the URI, which whoever uses this looks at
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    if kind == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0  # hosts stay for days: nothing is there to be resumed
    try:
        context.load_cert_chain(directory / CERT_NAME, directory / KEY_NAME)
        context.load_verify_locations(cadata=ca_pem.decode("ascii"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise ValueError(f"{directory} is of no use for TLS: {error}") from None
    return context
