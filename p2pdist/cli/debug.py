"""`p2pdist debug`: why something took the way it took."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

import click

from p2pdist.cli.options import mirror_option, of_platform
from p2pdist.cli.status import DEFAULT_ADMINS

if TYPE_CHECKING:
    from p2pdist.swarm.stories import Told


@click.group()
def debug() -> None:
    """Tell why something took the way it took, from what the daemons of this host remember."""


@debug.command()
@click.argument("blob", metavar="[DIGEST|IMAGE]", required=False)
@click.option(
    "--admin",
    "admins",
    multiple=True,
    metavar="URL",
    help="Admin address of a daemon, as often as needed; else those of this host.",
)
@click.option("-o", "--output", type=click.Choice(["text", "json"]), default="text")
@click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
@mirror_option("Mirror that is asked which layers IMAGE has")
@of_platform
def story(
    blob: str | None,
    admins: tuple[str, ...],
    output: str,
    as_json: bool,
    endpoint: str,
    platform_text: str | None,
) -> None:
    """Tell how a blob came to this host: who brought it, what was waited for, what took the time.

    DIGEST is that of a layer, or its beginning, with or without `sha256:`; IMAGE stands for all its
    layers. Without either the blobs are listed that there is a story of: the last 64 that were in
    motion since the daemon started. Configs, manifests and other blobs of one chunk have none.

    Every daemon of this host that knows the blob tells its own story: a peer how it came to the
    host, a proxy how it came to the datacenter. Told on the daemon's own host only.

    Exit codes: 0 told, 2 several blobs begin like that, 3 nothing is known of it, 5 no daemon (or,
    for IMAGE, no mirror) answers.

    \b
    Examples:
      p2pdist debug story
      p2pdist debug story 2c7ab5de
      p2pdist debug story registry.corp/shop/api:2.4
      p2pdist debug story sha256:2c7ab5de --json | jq '.[].stories[0].lacks'
    """
    from p2pdist.cli.stories.ask import all_told, digests_of
    from p2pdist.cli.stories.text import describe, describe_known
    from p2pdist.process.terminal import columns_of

    places = admins or DEFAULT_ADMINS
    wanted = asyncio.run(digests_of(blob, endpoint, platform_text)) if blob else [""]
    told = asyncio.run(all_told(places, wanted))
    if as_json or output == "json":
        click.echo(_json(told))
        return
    columns = columns_of(sys.stdout)
    for each in told:
        lines = describe(each, columns) if blob else describe_known(each, columns)
        click.echo("\n".join(lines) + "\n")


def _json(told: list[Told]) -> str:
    import json

    import msgspec

    plain: Any = msgspec.to_builtins(told)
    return json.dumps(plain, indent=2)
