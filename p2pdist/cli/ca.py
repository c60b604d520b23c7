"""`p2pdist ca`: the certificate authority of a cluster, and the certificates of its hosts."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from p2pdist.cli.options import OPERATOR_DIR
from p2pdist.model.joining import MANY_PREFIX, TOKEN_PREFIX, USES_MAX
from p2pdist.process.terminal import printable

if TYPE_CHECKING:
    from p2pdist.process.certificates import Certificate

ROLES: Final = ("peer", "proxy", "tracker", "operator")
_DIRECTORY: Final = click.Path(file_okay=False, path_type=Path)


_ca_dir = click.option(
    "--dir",
    "directory",
    type=_DIRECTORY,
    default=Path("/etc/p2pdist/ca"),
    show_default=True,
    help="Where the CA is.",
)


@click.group()
def ca() -> None:
    """Make the CA of a cluster, and certificates for its hosts.

    A certificate says which host shows it, and in which role. Trackers and hosts that have one
    speak TLS 1.3 and believe nobody's mere word on that: who steals one host's key is that host,
    and no other one. The cluster secret stays beside it.

    \b
    On the machine that keeps the CA, which runs no daemon:
      p2pdist ca init
      p2pdist ca issue --role tracker --out out/tracker-1
      p2pdist ca issue --role peer --out out/host-17
    On each host, with its three files in /etc/p2pdist/identity, in its configuration:
      [peer]
      identity_dir = "/etc/p2pdist/identity"
    """


@ca.command("init")
@click.option(
    "--dir",
    "directory",
    type=_DIRECTORY,
    default=Path("/etc/p2pdist/ca"),
    show_default=True,
    help="Where to put ca.key and ca.pem.",
)
def init(directory: Path) -> None:
    """Make a CA: ca.key, which signs for all hosts, and ca.pem, which all hosts get.

    Whoever has ca.key can be any host: keep it on a machine of its own, and a copy elsewhere. A CA
    that is there is not replaced.

    \b
    Example:
      p2pdist ca init --dir /root/p2pdist-ca
    """
    from p2pdist.process import clock
    from p2pdist.process.ca import make_ca

    made = make_ca(directory, clock.unix_s())
    click.echo(printable(f"wrote ca.key and ca.pem in {directory}: {made.subject}"))


@ca.command("issue")
@click.option("--role", type=click.Choice(ROLES), required=True, help="What the host runs.")
@click.option(
    "--host-id",
    metavar="HEX",
    help="Host id, 32 hex characters; without it, the one of the certificate in --out, else a "
    "new one. The daemon goes by it.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 397),
    default=30,
    show_default=True,
    help="How long it is good.",
)
@click.option(
    "--out",
    type=_DIRECTORY,
    help="Where to put ca.pem, cert.pem and key.pem; a certificate of the same host there is "
    f"replaced. An operator's goes to {OPERATOR_DIR} without it.",
)
@click.option(
    "--if-needed",
    is_flag=True,
    help="Leave what is in --out, unless it has ended or its ca.pem lacks this CA.",
)
@_ca_dir
def issue(
    role: str,
    host_id: str | None,
    days: int,
    out: Path | None,
    directory: Path,
    *,
    if_needed: bool,
) -> None:
    """Make a key and a certificate for one daemon of one host, or for one who operates them.

    Copy the three files to the host, key.pem readable by the daemon's user alone, name their
    directory in identity_dir of its section, and restart it. The same command again makes the next
    certificate, for the same host id, which the daemon takes up without a restart; do so before the
    old one ends: `p2pdist doctor` on the host and p2pdist_identity_expires_seconds say when.

    A certificate of role operator is for people and pipelines: `p2pdist prewarm` and `replicas`
    show it to trackers. Nobody renews it: the same command again does.

    \b
    Examples:
      p2pdist ca issue --role tracker --out out/tracker-1
      p2pdist ca issue --role peer --host-id $(head -1 /var/lib/p2pdist-peer/peer/host_id) \\
          --out out/host-17             a host keeps the id that it has
      p2pdist ca issue --role operator  for yourself; prewarm finds it
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    from p2pdist.cli.kept_identity import is_there, kept_identity, of_no_use
    from p2pdist.errors import ConfigError
    from p2pdist.model.identity import IdentityRole
    from p2pdist.model.ids import parse_host_id
    from p2pdist.process import clock
    from p2pdist.process.ca import issue_files, read_ca
    from p2pdist.process.certificates import fingerprint
    from p2pdist.process.revocation_lists import listed

    try:
        wanted = None if host_id is None else parse_host_id(host_id)
    except ValueError as error:
        raise ConfigError(f"--host-id: {error}; 32 lower-case hex characters") from None
    if out is None and role != IdentityRole.OPERATOR:
        raise ConfigError("--out is missing: where to put ca.pem, cert.pem and key.pem")
    out = Path(OPERATOR_DIR).expanduser() if out is None else out
    now_s, ca = clock.unix_s(), read_ca(directory)
    if if_needed and is_there(out):
        there = kept_identity(out, role)
        if not of_no_use(there, fingerprint(ca.certificate.public_bytes(Encoding.DER)), now_s):
            click.echo(printable(f"nothing to do: {out} is for {there.identity}"), err=True)
            return
    why = listed(directory, ca).why
    kind = IdentityRole(role)
    found = issue_files(ca, out, kind, wanted, days=days, now_s=now_s, revoked=why)
    click.echo(printable(f"wrote ca.pem, cert.pem and key.pem in {out}"), err=True)
    _show(found, now_s)


@ca.command("token")
@click.option("--role", type=click.Choice(ROLES[:3]), required=True, help="What the host runs.")
@click.option("--host-id", metavar="HEX", help="Host id to keep; without it, a new one.")
@click.option(
    "--tracker", required=True, metavar="HOST:PORT", help="Who takes it: tracker.join, as there."
)
@click.option("--ttl", default="1h", show_default=True, help="How long it is good, 30d at most.")
@click.option(
    "--uses",
    type=click.IntRange(1, USES_MAX),
    default=1,
    show_default=True,
    help="How many hosts may join with it; more than one for peers alone.",
)
@_ca_dir
def token(
    role: str, host_id: str | None, tracker: str, ttl: str, uses: int, directory: Path
) -> None:
    """Print a token with which a host gets its first certificate, by itself.

    Whoever has it first is that host: hand it over like a password. It is good once, at the tracker
    that it names, which has the CA's key (tracker.ca_dir) and the same HOST:PORT as tracker.join.

    With --uses, so many peers join with one token, each under a host id that the tracker makes: for
    fleets that are set up alike. Whoever takes it is as many hosts as are left of it. `p2pdist ca
    revoke TOKEN` ends it; the tracker's audit log (join.signed) names the hosts that it let in.

    \b
    Examples:
      p2pdist ca token --role peer --tracker tracker-1.example:5201
      p2pdist ca token --role peer --tracker tracker-1.example:5201 --uses 500 --ttl 7d
    and on each host:
      p2pdist join TOKEN --out /var/lib/p2pdist-peer/identity
    """
    from p2pdist.errors import ConfigError
    from p2pdist.model.control_wire import parse_tracker_url
    from p2pdist.model.identity import IdentityRole
    from p2pdist.model.ids import parse_host_id
    from p2pdist.process import clock
    from p2pdist.process.ca import read_ca
    from p2pdist.process.join_tokens import TTL_S_MAX, new_token, read_token
    from p2pdist.process.revocation_lists import listed
    from p2pdist.settings_kinds import parse_duration

    try:
        wanted = None if host_id is None else parse_host_id(host_id)
    except ValueError as error:
        raise ConfigError(f"--host-id: {error}; 32 lower-case hex characters") from None
    try:
        parse_tracker_url(f"tcp://{tracker}")
    except ValueError:
        raise ConfigError(f"--tracker: {tracker!r} is no HOST:PORT") from None
    try:
        ttl_s = parse_duration(ttl)
    except ValueError as error:
        raise ConfigError(f"--ttl: {error}") from None
    if not 0 < ttl_s <= TTL_S_MAX:
        raise ConfigError("--ttl: above 0 and at most 30d")
    ends_s, ca = clock.unix_s() + ttl_s, read_ca(directory)
    if wanted is not None and (why := listed(directory, ca).why(wanted)):
        raise ConfigError(f"--host-id: {why}, for good; without it, the host gets a new one")
    kind = IdentityRole(role)
    try:
        made = new_token(ca, tracker, kind, wanted, ends_s=ends_s, uses=uses)
    except ValueError as error:
        raise ConfigError(f"--uses: {error}") from None
    click.echo(made)
    told = f"until {_moment(ends_s)}; `p2pdist ca revoke {read_token(made).id.hex()}` ends it"
    click.echo(f"good {'once' if uses == 1 else f'for {uses} hosts'}, {told}", err=True)


@ca.command("revoke")
@click.argument("hosts", metavar="HOST_ID|TOKEN...", nargs=-1, required=True)
@_ca_dir
def revoke(hosts: tuple[str, ...], directory: Path) -> None:
    """Have the certificates of hosts, or join tokens, count for nothing from now on and for good.

    For a host that was broken into or stolen. All certificates for its host id are meant, those
    that a tracker renewed too. Trackers that read this directory (tracker.ca_dir) find out within
    seconds, tell all hosts that are connected, and cut the host off; give all others revoked.list
    of this directory as a file in their identity_dir. A host that is trusted again gets another id:
    `p2pdist ca issue` into an empty directory.

    A join token, whole or by the id that `ca token` said, lets nobody in any more where trackers
    read this directory; those whom it let in stay, unless they are named too.

    It keeps out whoever has to show a certificate: set cluster.require_identity on all daemons. The
    host still knows the cluster secret.

    \b
    Examples:
      p2pdist ca revoke 0123456789abcdef0123456789abcdef
      p2pdist status -o json | grep host_id      on a host: its id
      p2pdist ca show cert.pem                   of a certificate: for whom it is
    """
    from p2pdist.errors import ConfigError
    from p2pdist.model.ids import parse_host_id
    from p2pdist.process import clock
    from p2pdist.process.ca import read_ca
    from p2pdist.process.revocation_lists import LIST_NAME
    from p2pdist.process.revocation_lists import revoke as revoke_in

    try:
        wanted = [parse_host_id(_id_of_token(text) or text) for text in hosts]
    except ValueError as error:
        raise ConfigError(f"{error}; a host id has 32 lower-case hex characters") from None
    fresh = revoke_in(directory, read_ca(directory), wanted, clock.unix_s())
    for host in wanted:
        click.echo(f"{host}  {'revoked' if host in fresh else 'was revoked before'}")
    click.echo(printable(f"the list: {directory / LIST_NAME}"), err=True)


def _id_of_token(text: str) -> str:
    """Raises ConfigError for a token that is damaged; empty: it is none."""
    from p2pdist.errors import ConfigError
    from p2pdist.process.join_tokens import read_token

    if not text.startswith((TOKEN_PREFIX, MANY_PREFIX)):
        return ""
    try:
        return read_token(text).id.hex()
    except ValueError as error:
        raise ConfigError(str(error)) from None


@ca.command("revoked")
@_ca_dir
def revoked(directory: Path) -> None:
    """List the hosts and tokens that were revoked, and when.

    \b
    Example:
      p2pdist ca revoked --dir /root/p2pdist-ca
    """
    from p2pdist.process.ca import read_ca
    from p2pdist.process.revocation_lists import listed
    from p2pdist.process.revoked_hosts import date_text

    found = listed(directory, read_ca(directory)).since
    for host, at_s in sorted(found.items(), key=lambda each: each[::-1]):
        click.echo(f"{host}  {date_text(at_s)}")
    click.echo(f"{len(found)} revoked", err=True)


@ca.command("show")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def show(file: Path) -> None:
    """Say who a certificate is for, until when, and who issued it.

    \b
    Example:
      p2pdist ca show /etc/p2pdist/identity/cert.pem
    """
    from p2pdist.process import clock
    from p2pdist.process.ca import show_file

    for one in show_file(file):
        _show(one, clock.unix_s())


def _show(certificate: Certificate, now_s: float) -> None:
    for line in certificate_lines(certificate, now_s):
        click.echo(printable(line))


def certificate_lines(certificate: Certificate, now_s: float) -> list[str]:
    """What people are told of a certificate."""
    from p2pdist.process.certificates import span_text

    who = str(certificate.identity or f"CA, {certificate.subject}")
    ends = _moment(certificate.ends_s)
    left = f"another {span_text(certificate.ends_s - now_s)}"
    state = certificate.fault_at(now_s) or left
    return [f"for    {who}", f"until  {ends} ({state})", f"by     {certificate.issuer}"]


def _moment(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
