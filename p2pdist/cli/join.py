"""`p2pdist join`: the first certificate of this host, for a token."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from p2pdist.model.control import Renewed
    from p2pdist.model.joining import Token
    from p2pdist.process.certificates import Certificate

_WHOLE: Final = "`p2pdist ca token` where the CA is makes another one"


@click.command()
@click.argument("token")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where to put ca.pem, cert.pem and key.pem; there is no certificate there yet.",
)
def join(token: str, out: Path) -> None:
    """Get the first certificate of this host, for a token of `p2pdist ca token`.

    The key is made here and stays here. The token names the tracker to ask, and the CA that this
    tracker has to be of: whoever else listens there gets to see neither token nor anything else. It
    is spent with the answer, whatever that is. Later certificates come by themselves.

    With - the token is read from stdin, so that the list of processes does not show it.

    Exit codes: 0 joined; 2 no token, or a certificate is there; 4 refused; 5 no such tracker there.

    \b
    Examples:
      p2pdist join p2pj1.lNk... --out /var/lib/p2pdist-peer/identity
      p2pdist join - --out /var/lib/p2pdist-peer/identity < token
    """
    from p2pdist.cli.ca import certificate_lines
    from p2pdist.errors import ConfigError
    from p2pdist.model.joining import TOKEN_TEXT_MAX
    from p2pdist.process import clock
    from p2pdist.process.ca import CERT_NAME
    from p2pdist.process.join_tokens import read_token
    from p2pdist.process.terminal import printable

    if token == "-":  # noqa: S105  # a place, no token
        token = sys.stdin.readline(TOKEN_TEXT_MAX + 2)
    try:
        read = read_token(token.strip())
    except ValueError as error:
        raise ConfigError(str(error), hint=_WHOLE) from None
    if (out / CERT_NAME).exists():
        hint = "name another directory, or move it away; one that is good renews itself"
        raise ConfigError(f"{out / CERT_NAME} is there already", hint=hint)
    now_s = clock.unix_s()
    if read.ends_s <= now_s:
        raise ConfigError("the token has ended, by the clock of this host", hint=_WHOLE)
    found = asyncio.run(_joined(read, token.strip(), out, now_s))
    click.echo(printable(f"wrote ca.pem, cert.pem and key.pem in {out}"), err=True)
    for line in certificate_lines(found, now_s):
        click.echo(printable(line))


async def _joined(token: Token, text: str, out: Path, now_s: float) -> Certificate:
    from p2pdist.cli.exit_codes import Exit
    from p2pdist.cli.failures import CommandError
    from p2pdist.control.joining import join as ask
    from p2pdist.errors import PeerFault
    from p2pdist.process.requests import new_request

    request = new_request()
    try:
        answer = await ask(token, text, request.der, now_s=now_s)
    except PeerFault as error:
        hint = "is the token of another cluster, or is something else at that address?"
        raise CommandError(str(error), Exit.UPSTREAM, hint) from None
    except TimeoutError:
        text = f"{token.tracker} does not answer"
        raise CommandError(text, Exit.UPSTREAM, "try again: the token is good yet") from None
    if not answer.certificate:
        raise CommandError(f"{token.tracker} refused: {answer.reason}", Exit.DENIED, _WHOLE)
    return _kept(token, answer, request.key, out)


def _kept(token: Token, answer: Renewed, key: bytes, out: Path) -> Certificate:
    """Write the three files, if they are what was asked for."""
    import ssl

    from p2pdist.cli.exit_codes import Exit
    from p2pdist.cli.failures import CommandError
    from p2pdist.model.members import Role
    from p2pdist.process.host_identity import read_identity
    from p2pdist.process.identity_files import put_in_place

    def check(place: Path) -> None:
        found = read_identity(place, Role(token.role)).identity
        if token.host_id not in ("", found.host_id):
            raise ValueError(f"it is for {found}")

    ca, cert = (
        "".join(map(ssl.DER_cert_to_PEM_cert, ders)).encode()
        for ders in (answer.cas, [answer.certificate])
    )
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        put_in_place(out, ca=ca, cert=cert, key=key, check=check)
    except ValueError as error:
        text = f"{token.tracker} sent what is no certificate for this host: {error}"
        raise CommandError(text, Exit.UPSTREAM, _WHOLE) from None
    return read_identity(out, Role(token.role)).says
