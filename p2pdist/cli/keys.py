"""`p2pdist keys`: the cluster secret and the proxy's signing key."""

from __future__ import annotations

import base64
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

import click

from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError

SECRET_NAME = "cluster.secret"  # noqa: S105  # a file name
KEY_NAME = "proxy.key"


@dataclass(frozen=True, slots=True)
class KeyFiles:
    secret_file: Path
    key_file: Path
    public_key: str
    """Base64, as `cluster.proxy_keys` takes it."""


def make_keys(directory: Path) -> KeyFiles:
    """Write a fresh secret and key, readable by us alone; raise CommandError if one is there."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = {
        directory / SECRET_NAME: secrets.token_hex(32).encode() + b"\n",
        directory / KEY_NAME: pem,
    }
    for path in files:
        if path.exists():
            raise CommandError(
                f"{path} exists already and is not replaced",
                Exit.USAGE,
                "to rotate, make new keys in another directory and list both public keys",
            )
    for path, data in files.items():
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return KeyFiles(directory / SECRET_NAME, directory / KEY_NAME, public)


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
    made = make_keys(directory)
    click.echo(f"wrote {made.secret_file} and {made.key_file}", err=True)
    click.echo("[cluster]")
    click.echo(f'secret_file = "{made.secret_file}"')
    click.echo(f'proxy_keys = ["{made.public_key}"]')
    click.echo("")
    click.echo("[proxy]  # on proxies only")
    click.echo(f'key_file = "{made.key_file}"')
