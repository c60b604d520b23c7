"""The CA of a cluster and the files of its hosts."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from p2pdist.errors import ConfigError
from p2pdist.model.control import CERTIFICATE_BYTES_MAX
from p2pdist.model.identity import Identity, IdentityRole
from p2pdist.model.ids import HostId
from p2pdist.process.ca import (
    BACKDATED_S,
    CA_DAYS,
    issue,
    issue_files,
    make_ca,
    new_ca,
    read_ca,
    show_file,
)
from p2pdist.process.certificates import (
    DAY_S,
    described,
    identity_in,
    issued_by,
    read_cas,
    span_text,
)

NOW_S = 1_800_000_000.0
ID = HostId("a" * 32)
PEER = Identity(IdentityRole.PEER, ID)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_made_ca_issues_what_says_who_and_until_when(tmp_path: Path) -> None:
    make_ca(tmp_path / "ca", NOW_S)
    out = tmp_path / "host"

    says = issue_files(read_ca(tmp_path / "ca"), out, IdentityRole.PEER, ID, days=30, now_s=NOW_S)

    assert says.identity == PEER
    assert (says.begins_s, says.ends_s) == (NOW_S - BACKDATED_S, NOW_S + 30 * DAY_S)
    assert show_file(out / "cert.pem") == [says]
    (ca,) = show_file(out / "ca.pem")
    assert ca.identity is None
    assert ca.subject == says.issuer
    assert [mode(out / name) for name in ("ca.pem", "cert.pem", "key.pem")] == [0o644, 0o644, 0o600]
    assert [mode(tmp_path / "ca" / name) for name in ("", "ca.key")] == [0o700, 0o600]


def test_a_ca_that_is_there_is_not_replaced(tmp_path: Path) -> None:
    make_ca(tmp_path, NOW_S)
    before = (tmp_path / "ca.key").read_bytes()

    with pytest.raises(ConfigError, match=r"ca\.key exists already"):
        make_ca(tmp_path, NOW_S)
    assert (tmp_path / "ca.key").read_bytes() == before


def test_the_next_certificate_is_for_the_same_host_with_another_key(tmp_path: Path) -> None:
    ca = new_ca(NOW_S)
    first = issue_files(ca, tmp_path, IdentityRole.PROXY, None, days=30, now_s=NOW_S)
    key = (tmp_path / "key.pem").read_bytes()

    later_s = NOW_S + 20 * DAY_S
    again = issue_files(ca, tmp_path, IdentityRole.PROXY, None, days=30, now_s=later_s)

    assert again.identity == first.identity
    assert again.ends_s == later_s + 30 * DAY_S
    assert (tmp_path / "key.pem").read_bytes() != key


@pytest.mark.parametrize(("role", "host_id"), [("proxy", None), ("peer", HostId("b" * 32))])
def test_a_certificate_of_somebody_else_is_not_replaced(
    tmp_path: Path, role: str, host_id: HostId | None
) -> None:
    ca = new_ca(NOW_S)
    issue_files(ca, tmp_path, IdentityRole.PEER, ID, days=30, now_s=NOW_S)

    with pytest.raises(ConfigError, match=f"is for peer {ID}; choose another directory"):
        issue_files(ca, tmp_path, IdentityRole(role), host_id, days=30, now_s=NOW_S)


def test_a_file_that_is_no_certificate_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "cert.pem").write_text("something that somebody needs")

    with pytest.raises(ConfigError, match=r"none of ours .* move it away"):
        issue_files(new_ca(NOW_S), tmp_path, IdentityRole.PEER, ID, days=30, now_s=NOW_S)
    assert not (tmp_path / "key.pem").exists()


def test_nothing_outlives_its_ca_and_an_ended_one_issues_nothing(tmp_path: Path) -> None:
    ca = new_ca(NOW_S)
    end_s = NOW_S + CA_DAYS * DAY_S

    assert issue(ca, PEER, days=30, now_s=end_s - DAY_S).says.ends_s == end_s
    with pytest.raises(ConfigError, match="expired 2 days ago; `p2pdist ca init`"):
        issue_files(ca, tmp_path, IdentityRole.PEER, ID, days=30, now_s=end_s + 2 * DAY_S)


@pytest.mark.parametrize(
    ("name", "left", "says"),
    [
        ("ca.key", None, "ca init"),
        ("ca.pem", None, "ca init"),
        ("ca.key", b"no key", "no private key in PEM"),
        ("ca.pem", b"no certificate", "is no CA"),
        ("ca.pem", b"x" * 100_000, "larger than 65536 bytes"),
        ("ca.key", bytes(240), "lost its bytes"),
    ],
)
def test_a_ca_that_cannot_be_read_names_the_file(
    tmp_path: Path, name: str, left: bytes | None, says: str
) -> None:
    make_ca(tmp_path, NOW_S)
    if left is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(left)

    with pytest.raises(ConfigError, match=says) as failed:
        read_ca(tmp_path)
    assert name in str(failed.value)


def test_a_ca_whose_key_others_may_read_or_that_is_anothers_is_refused(tmp_path: Path) -> None:
    make_ca(tmp_path / "one", NOW_S)
    make_ca(tmp_path / "two", NOW_S)
    key = tmp_path / "one" / "ca.key"
    key.write_bytes((tmp_path / "two" / "ca.key").read_bytes())

    with pytest.raises(ConfigError, match=r"ca\.key is not the key of ca\.pem"):
        read_ca(tmp_path / "one")
    key.chmod(0o644)
    with pytest.raises(ConfigError, match=r"chmod 600 .*ca\.key"):
        read_ca(tmp_path / "one")


def test_who_issued_is_told_by_the_signature_and_not_by_the_name() -> None:
    ca, other = new_ca(NOW_S), new_ca(NOW_S)
    issued = x509.load_pem_x509_certificate(issue(ca, PEER, days=1, now_s=NOW_S).certificate)

    assert issued_by(issued, [other.certificate, ca.certificate])
    assert not issued_by(issued, [other.certificate])
    assert not issued_by(issued, [])


def test_a_host_is_no_ca() -> None:
    pem = issue(new_ca(NOW_S), PEER, days=1, now_s=NOW_S).certificate

    with pytest.raises(ValueError, match="is no CA"):
        read_cas(pem)
    with pytest.raises(ValueError, match="more than 8"):
        read_cas(new_ca(NOW_S).pem * 9)


def self_made(*extensions: tuple[x509.ExtensionType, bool]) -> x509.Certificate:
    """One that was issued right, with just these extensions, by a key that is its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    like = x509.load_pem_x509_certificate(
        issue(new_ca(NOW_S), PEER, days=1, now_s=NOW_S).certificate
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, SHA256())


CONSTRAINTS = (x509.BasicConstraints(False, None), True)
NAMES = (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(PEER.uri)]), False)
SERVER_ONLY = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False)
CLIENT = (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)
FLAGS = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
         "crl_sign", "encipher_only", "decipher_only")  # fmt: skip


def usage(*, sign: bool = True, cas: bool = False) -> tuple[x509.ExtensionType, bool]:
    flags = dict.fromkeys(FLAGS, False)
    return x509.KeyUsage(digital_signature=sign, key_cert_sign=cas, **flags), True


@pytest.mark.parametrize(
    ("extensions", "says"),
    [
        ((), "lacks basicConstraints"),
        ((CONSTRAINTS,), "lacks subjectAltName"),
        ((CONSTRAINTS, NAMES), "lacks keyUsage"),
        ((CONSTRAINTS, NAMES, usage()), "lacks extendedKeyUsage"),
        ((CONSTRAINTS, NAMES, usage(), SERVER_ONLY), "not for a client"),
        ((CONSTRAINTS, NAMES, usage(sign=False), CLIENT), "not for a signature"),
        ((CONSTRAINTS, NAMES, usage(cas=True), CLIENT), "not for a signature"),
        (
            (CONSTRAINTS, (x509.SubjectAlternativeName([x509.DNSName("peer")]), False), usage(),
             CLIENT),
            "names 0 identities",
        ),
    ],
)  # fmt: skip
def test_what_is_for_something_else_is_none_of_ours(
    extensions: tuple[tuple[x509.ExtensionType, bool], ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        described(self_made(*extensions))


def test_what_is_complete_is_read() -> None:
    assert described(self_made(CONSTRAINTS, NAMES, usage(), CLIENT)).identity == PEER


@pytest.mark.parametrize("der", [b"", b"\x30\x82", bytes(200), bytes(CERTIFICATE_BYTES_MAX + 1)])
def test_bytes_that_are_no_certificate_are_none(der: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the library's own words, or ours
        identity_in(der)


def test_an_oversized_certificate_is_not_even_parsed() -> None:
    names = [x509.DNSName(f"n{number}.example") for number in range(400)]
    uri = x509.UniformResourceIdentifier(PEER.uri)
    large = (x509.SubjectAlternativeName([uri, *names]), False)
    issued = self_made(CONSTRAINTS, large, usage(), CLIENT)

    assert described(issued).identity == PEER
    with pytest.raises(ValueError, match=r"a certificate of \d+ bytes"):
        identity_in(issued.public_bytes(Encoding.DER))


@pytest.mark.parametrize(
    ("seconds", "text"), [(90, "2 minutes"), (7200, "2 hours"), (3 * DAY_S, "3 days")]
)
def test_spans_are_said_as_people_say_them(seconds: float, text: str) -> None:
    assert span_text(seconds) == text
