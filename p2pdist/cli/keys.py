"""`p2pdist keys`: the cluster secret and the proxy's signing key."""

from __future__ import annotations

from pathlib import Path

import click

from p2pdist.process.terminal import printable


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

    Copy cluster.secret and proxy.pub to every host and proxy.key to the proxies only; all but
    proxy.pub stay readable by their owner alone. Instead of proxy_keys, a host may name proxy.pub
    as cluster.proxy_keys_file; to rotate, add the new key's line to it.
    """
    import tomlkit

    from p2pdist.process.keys import make_keys

    made = make_keys(directory)
    text = f"wrote cluster.secret, proxy.key and proxy.pub in {directory}"
    click.echo(printable(text), err=True)
    cluster = {"secret_file": str(made.secret_file), "proxy_keys": [made.public_key]}
    click.echo(tomlkit.dumps({"cluster": cluster}))
    click.echo("# on proxies only")
    click.echo(tomlkit.dumps({"proxy": {"key_file": str(made.key_file)}}), nl=False)
