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
    from p2pdist.process.requests import Request

_WHOLE: Final = "`p2pdist ca token` where the CA is makes another one"
_OLD: Final = "a tracker of before tokens of several uses: upgrade it, or make one without --uses"
KEY_UNTIL_JOINED: Final = "joining.key"


@click.command()
@click.argument("token", required=False)
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File with the token, in the place of TOKEN.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Where to put ca.pem, cert.pem and key.pem; there is no certificate there yet.",
)
@click.option(
    "--if-needed",
    is_flag=True,
    help="Where a certificate is there, leave it and end with 0; but for one that has ended or is "
    "of another CA than the token: join as a new host then.",
)
def join(token: str | None, token_file: Path | None, out: Path, *, if_needed: bool) -> None:
    """Get the first certificate of this host, for a token of `p2pdist ca token`.

    The key is made here and stays here. The token names the tracker to ask, and the CA that this
    tracker has to be of: whoever else listens there gets to see neither token nor anything else.
    The command may be run again with the same token and --out when no answer came: the key waits
    there, and for the same key the token is used once. Later certificates come by themselves.

    With - the token is read from stdin, so that the list of processes does not show it. With
    --if-needed the command may be run before every start of a daemon; the token may be gone once
    there is a certificate.

    Exit codes: 0 joined; 2 no token, or a certificate is there; 4 refused; 5 no such tracker there.

    \b
    Examples:
      p2pdist join p2pj1.lNk... --out /var/lib/p2pdist-peer/identity
      p2pdist join - --out /var/lib/p2pdist-peer/identity < token
      p2pdist join --token-file token --out /var/lib/p2pdist-peer/identity --if-needed
    """
    from p2pdist.cli.kept_identity import HINT, is_there, kept_identity, of_no_use
    from p2pdist.errors import ConfigError
    from p2pdist.process import clock
    from p2pdist.process.ca import CERT_NAME
    from p2pdist.process.join_tokens import read_token
    from p2pdist.process.terminal import printable

    if (token is None) == (token_file is None):
        raise ConfigError("give either TOKEN or --token-file", hint=_WHOLE)
    now_s, text, read, trouble = clock.unix_s(), "", None, ""
    try:
        text = _given(token, token_file)
        read = read_token(text)
    except ValueError as error:
        trouble = str(error)
    if is_there(out):
        if not if_needed:
            raise ConfigError(f"{out / CERT_NAME} is there already", hint=HINT)
        role, ca = (None, None) if read is None else (read.role, read.ca)
        there = kept_identity(out, role)
        why = of_no_use(there, ca, now_s)
        where = f"{out / CERT_NAME}, for {there.identity},"
        if not why:
            (out / KEY_UNTIL_JOINED).unlink(missing_ok=True)
            click.echo(printable(f"nothing to do: {where} is there already"), err=True)
            return
        click.echo(printable(f"{where} {why}: asking for another one"), err=True)
    if read is None:
        raise ConfigError(trouble, hint=_WHOLE)
    if read.ends_s <= now_s:
        raise ConfigError("the token has ended, by the clock of this host", hint=_WHOLE)
    found = asyncio.run(_joined(read, text, out, now_s))
    click.echo(printable(f"wrote ca.pem, cert.pem and key.pem in {out}"), err=True)
    _say(found, now_s)


def _say(found: Certificate, now_s: float) -> None:
    from p2pdist.cli.ca import certificate_lines
    from p2pdist.process.terminal import printable

    for line in certificate_lines(found, now_s):
        click.echo(printable(line))


def _given(token: str | None, token_file: Path | None) -> str:
    """Raises ValueError."""
    from p2pdist.model.joining import TOKEN_TEXT_MAX
    from p2pdist.process.secret_files import read_secret_file

    if token_file is not None:
        return read_secret_file(token_file, TOKEN_TEXT_MAX + 2).decode().strip()
    if token == "-":  # noqa: S105  # a place, no token
        return sys.stdin.readline(TOKEN_TEXT_MAX + 2).strip()
    return (token or "").strip()


async def _joined(token: Token, text: str, out: Path, now_s: float) -> Certificate:
    from p2pdist.cli.exit_codes import Exit
    from p2pdist.cli.failures import CommandError
    from p2pdist.control.joining import join as ask
    from p2pdist.errors import PeerFault

    request = _request(out)
    try:
        answer = await ask(token, text, request.der, now_s=now_s)
    except PeerFault as error:
        hint = "is the token of another cluster, or is something else at that address?"
        raise CommandError(str(error), Exit.UPSTREAM, hint) from None
    except TimeoutError:
        said = f"{token.tracker} does not answer"
        raise CommandError(said, Exit.UPSTREAM, "try again: the token is good yet") from None
    if not answer.certificate:
        hint = _OLD if token.uses > 1 and "no join token" in answer.reason else _WHOLE
        raise CommandError(f"{token.tracker} refused: {answer.reason}", Exit.DENIED, hint)
    found = _kept(token, answer, request.key, out)
    (out / KEY_UNTIL_JOINED).unlink(missing_ok=True)
    return found


def _request(out: Path) -> Request:
    """Ask with the key of the last try, if one is left: a tracker that signed for it, and was not
    heard, counts no other host."""
    from p2pdist.errors import ConfigError
    from p2pdist.process.files import write_whole
    from p2pdist.process.requests import new_request, request_of
    from p2pdist.process.secret_files import KEY_FILE_BYTES_MAX, read_secret_file

    path = out / KEY_UNTIL_JOINED
    if path.exists():
        try:
            return request_of(read_secret_file(path, KEY_FILE_BYTES_MAX))
        except ValueError as error:
            raise ConfigError(f"{path}: {error}", hint="remove it, for another key") from None
    made = new_request()
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, made.key)
    return made


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
    try:
        put_in_place(out, ca=ca, cert=cert, key=key, check=check)
    except ValueError as error:
        text = f"{token.tracker} sent what is no certificate for this host: {error}"
        raise CommandError(text, Exit.UPSTREAM, _WHOLE) from None
    return read_identity(out, Role(token.role)).says
