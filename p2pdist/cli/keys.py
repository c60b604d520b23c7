"""`p2pdist keys`: the cluster secret and the proxy's signing key."""

from __future__ import annotations

from pathlib import Path

import click


@click.group()
def keys() -> None:
    """Make the cluster secret and the proxy's signing key."""


@keys.command("init")
@click.option(
    "--dir",
    "directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("/etc/p2pdist"),
    show_default=True,
    help="Where to put the files.",
)
def init(directory: Path) -> None:
    """Make both and print the configuration lines that every host needs.

    Copy cluster.secret to every host and proxy.key to the proxies only; both stay readable by their
    owner alone.
    """
    from p2pdist.runtime.keys import make_keys

    made = make_keys(directory)
    click.echo(f"wrote {made.secret_file} and {made.key_file}", err=True)
    click.echo("[cluster]")
    click.echo(f'secret_file = "{made.secret_file}"')
    click.echo(f'proxy_keys = ["{made.public_key}"]')
    click.echo("")
    click.echo("[proxy]  # on proxies only")
    click.echo(f'key_file = "{made.key_file}"')
