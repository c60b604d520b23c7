"""Options that all verbs about jobs share, and the trackers that they name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError
from p2pdist.cli.options import config_option, mirror_option

if TYPE_CHECKING:
    from p2pdist.cli.prewarming.resolve import Resolver
    from p2pdist.cli.prewarming.trackers import Trackers

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_TRACKER: Final = "http://127.0.0.1:5209"
TRACKERS_MAX: Final = 64


def tracker_options(command: F) -> F:
    """Add `trackers`, `secret_file` and `config`."""
    command = config_option(command)
    command = click.option(
        "--secret-file",
        type=click.Path(dir_okay=False, path_type=Path),
        help="File with the cluster secret; else cluster.secret_file of the configuration.",
    )(command)
    return click.option(
        "--tracker",
        "trackers",
        multiple=True,
        metavar="URL",
        help="Admin address of a tracker, one for each datacenter; else those in the variable "
        f"P2PDIST_TRACKERS, with commas between; else {DEFAULT_TRACKER}.",
    )(command)


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
async def open_trackers(
    urls: tuple[str, ...], secret_file: Path | None, config: Path | None
) -> AsyncIterator[Trackers]:
    """Clients of the trackers, for as long as the block lasts. Raises CommandError, ConfigError."""
    import aiohttp

    from p2pdist.cli.prewarming.trackers import Trackers
    from p2pdist.control.jobs_client import JobsClient
    from p2pdist.process.operator_token import operator_token

    token = operator_token(_secret(secret_file, config))
    async with aiohttp.ClientSession() as session:
        yield Trackers([JobsClient(url, token, session) for url in _checked(urls)])


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
    import os

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
