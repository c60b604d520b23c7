"""`p2pdist keys`: the cluster secret and the proxy's signing key."""

from __future__ import annotations

from pathlib import Path

import click

from p2pdist.process.terminal import printable


@click.group()
def keys() -> None:
    """Make the cluster secret and the proxy's signing key; change the secret."""


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


_NEXT = {
    "add": "copy it to every host; when `p2pdist doctor` names both there: `swap`",
    "swap": "copy it to every host; when `p2pdist doctor` names the new one first there: `drop`",
    "drop": "copy it to every host: connections under the old secret end then, and come again",
}


@keys.command("rotate-secret")
@click.argument("step", type=click.Choice(tuple(_NEXT)))
@click.option(
    "--file",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("/etc/p2pdist/cluster.secret"),
    show_default=True,
    help="The file with the cluster secret.",
)
def rotate_secret(step: str, path: Path) -> None:
    """Change the cluster secret without a restart, in three steps.

    add puts a new secret behind the old one, swap the new one first, drop takes the old one away.
    After each step copy the file to all hosts: daemons take it up within 15 seconds. Do the next
    step when every host has taken it up; no connection ends before the last one.

    \b
    Examples:
      p2pdist keys rotate-secret add
      p2pdist keys rotate-secret swap --file keys/cluster.secret
    """
    from p2pdist.process.keys import Step
    from p2pdist.process.keys import rotate_secret as rotate

    believed = rotate(path, Step(step))
    click.echo(printable(f"{path}: {believed}"))
    click.echo(f"next: {_NEXT[step]}")
