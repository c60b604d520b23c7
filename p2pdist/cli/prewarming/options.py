"""Options that all verbs about jobs share, and the trackers that they name."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import OPERATOR_DIR, config_option, mirror_option
from p2pdist.process.terminal import printable

if TYPE_CHECKING:
    import aiohttp

    from p2pdist.cli.prewarming.resolve import Resolver
    from p2pdist.cli.prewarming.trackers import Trackers
    from p2pdist.control.jobs_client import TrackerTls
    from p2pdist.process.host_identity import HostIdentity

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TRACKER: Final = "http://127.0.0.1:5209"
TRACKERS_MAX: Final = 64
IDENTITY_VARIABLE: Final = "P2PDIST_IDENTITY"


@dataclass(frozen=True, slots=True)
class Desk:
    """Which trackers a command asks, and what it shows them."""

    trackers: tuple[str, ...]
    identity: Path | None
    secret_file: Path | None
    config: Path | None


def tracker_options(command: F) -> F:
    """Add `desk`, of several options."""

    @functools.wraps(command)
    def with_desk(
        *args: Any,
        trackers: tuple[str, ...],
        identity: Path | None,
        secret_file: Path | None,
        config: Path | None,
        **rest: Any,
    ) -> Any:
        return command(*args, desk=Desk(trackers, identity, secret_file, config), **rest)

    found = config_option(with_desk)
    found = click.option(
        "--secret-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with the cluster secret, to ask without a certificate; else "
        "cluster.secret_file of the configuration.",
    )(found)
    found = click.option(
        "--identity",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Directory of an operator's certificate (`p2pdist ca issue --role operator`); else "
        f"that in the variable {IDENTITY_VARIABLE}, else {OPERATOR_DIR} if it is there.",
    )(found)
    found = click.option(
        "--tracker",
        "trackers",
        multiple=True,
        metavar="URL",
        help="Admin address of a tracker, one for each datacenter; else those in the variable "
        f"P2PDIST_TRACKERS, with commas between; else {DEFAULT_TRACKER}.",
    )(found)
    return cast(F, found)


endpoint_option = mirror_option("Mirror or proxy that says what the names stand for")


def output_option(command: F) -> F:
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json"]),
        default="table",
        show_default=True,
        help="json: one object on stdout at the end.",
    )(command)


@contextlib.asynccontextmanager
async def open_trackers(desk: Desk) -> AsyncIterator[Trackers]:
    """Clients of the trackers, for as long as the block lasts. Raises CommandError, ConfigError."""
    import aiohttp

    from p2pdist.cli.prewarming.trackers import Trackers
    from p2pdist.control.jobs_client import JobsClient
    from p2pdist.process.operator_token import operator_token

    urls, own = _checked(desk.trackers), _operator_identity(desk)
    token = operator_token(_secret(desk.secret_file, desk.config)) if own is None else ""
    async with aiohttp.ClientSession() as session:
        tls = None if own is None else await _operator_tls(own, urls, session)
        yield Trackers([JobsClient(url, token, session, tls) for url in urls])


async def _operator_tls(
    own: HostIdentity, urls: Sequence[str], session: aiohttp.ClientSession
) -> TrackerTls:
    """How to speak as an operator, by the next certificate if it is time for that."""
    from p2pdist.control.jobs_client import TrackerTls
    from p2pdist.control.operator_renewal import NotRenewed, renewed
    from p2pdist.model.operator_renewal import WARN_S, due
    from p2pdist.process import clock
    from p2pdist.process.certificates import span_text

    now_s, says, found = clock.unix_s(), own.says, own
    if due(says.begins_s, says.ends_s, now_s):
        try:
            found = await renewed(own, urls, session, now_s=now_s)
        except NotRenewed as error:
            if says.ends_s - now_s < WARN_S:
                left = span_text(says.ends_s - now_s)
                _say(f"warning: your certificate in {own.directory} ends in {left}")
                _say(f"  not renewed: {error}")
        else:
            left = span_text(found.says.ends_s - now_s)
            _say(f"renewed your certificate in {own.directory}: good for {left}")
    return TrackerTls(lambda: found.trackers, required=True)


def _say(text: str) -> None:
    click.echo(printable(text), err=True)


def _operator_identity(desk: Desk) -> HostIdentity | None:
    """Who to speak as; None: as somebody who has the secret. Raises CommandError."""
    directory = _identity_dir(desk)
    if directory is None:
        return None
    from p2pdist.model.identity import IdentityRole
    from p2pdist.process import clock
    from p2pdist.process.host_identity import read_identity

    anew = "`p2pdist ca issue --role operator --out DIR` where the CA is makes one"
    try:
        found = read_identity(directory, IdentityRole.OPERATOR)
    except ValueError as error:
        raise CommandError(f"--identity: {error}", Exit.USAGE, anew) from None
    if fault := found.says.fault_at(clock.unix_s()):
        text = f"--identity: the certificate in {directory} {fault}"
        raise CommandError(text, Exit.USAGE, anew)
    return found


def _identity_dir(desk: Desk) -> Path | None:
    """The option, else the variable, else the usual place; none with `--secret-file`."""
    if desk.identity is not None and desk.secret_file is not None:
        text = "one of --identity and --secret-file: who shows a certificate needs no secret"
        raise CommandError(text, Exit.USAGE)
    if desk.identity is not None or desk.secret_file is not None:
        return desk.identity
    if named := os.environ.get(IDENTITY_VARIABLE):
        return Path(named)
    usual = Path(OPERATOR_DIR).expanduser()
    return usual if usual.is_dir() else None


@contextlib.asynccontextmanager
async def open_resolver(endpoint: str) -> AsyncIterator[Resolver]:
    import aiohttp

    from p2pdist.cli.prewarming.resolve import Resolver, timeouts

    async with aiohttp.ClientSession(timeout=timeouts(), auto_decompress=False) as session:
        yield Resolver(endpoint, session)


def _secret(secret_file: Path | None, config: Path | None) -> bytes:
    from p2pdist.process.identity import read_secret
    from p2pdist.settings_load import load_settings

    if secret_file is not None:
        return read_secret(secret_file)
    return read_secret(load_settings(config).settings.cluster.secret_file)


def _checked(urls: tuple[str, ...]) -> list[str]:
    """Return the trackers to ask, each once."""
    from yarl import URL

    named = urls or tuple(os.environ.get("P2PDIST_TRACKERS", "").replace(",", " ").split())
    found = list(dict.fromkeys(url.rstrip("/") for url in named or (DEFAULT_TRACKER,)))
    for url in found:
        try:
            parsed = URL(url)
            good = parsed.scheme in ("http", "https") and bool(parsed.host)
        except ValueError:
            good = False
        if not good:
            raise CommandError(
                f"{url!r} is no address of a tracker, such as {DEFAULT_TRACKER}", Exit.USAGE
            )
    if len(found) > TRACKERS_MAX:
        raise CommandError(f"at most {TRACKERS_MAX} trackers", Exit.USAGE)
    return found
