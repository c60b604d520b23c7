"""Makes the secret and the key that `identity` reads."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from p2pdist.errors import ConfigError
from p2pdist.process.files import write_whole
from p2pdist.process.identity import read_signer

SECRET_NAME = "cluster.secret"  # noqa: S105  # a file name
KEY_NAME = "proxy.key"
PUBLIC_NAME = "proxy.pub"


@dataclass(frozen=True, slots=True)
class KeyFiles:
    secret_file: Path
    key_file: Path
    public_key: str
    """Base64, as `cluster.proxy_keys` takes it."""


def make_keys(directory: Path) -> KeyFiles:
    """Write a fresh secret and key, readable by us alone, and the public key, readable by all.

    The public key comes last: where it is, the others are whole. Raises ConfigError if one of the
    files is there.
    """
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = base64.b64encode(key.public_key().public_bytes_raw()).decode()
    files = {
        directory / SECRET_NAME: (secrets.token_hex(32).encode() + b"\n", 0o600),
        directory / KEY_NAME: (pem, 0o600),
        directory / PUBLIC_NAME: (public.encode() + b"\n", 0o644),
    }
    for path in files:
        if path.exists():
            raise ConfigError(
                f"{path} exists already and is not replaced; to rotate, make new keys in another "
                "directory and list both public keys"
            )
    for path, (data, mode) in files.items():
        write_whole(path, data, mode=mode, replace=False)
    return KeyFiles(directory / SECRET_NAME, directory / KEY_NAME, public)


def find_or_make_keys(directory: Path) -> KeyFiles:
    """Return the keys of `directory`, made at the first call. Raises ConfigError."""
    secret_file, key_file = directory / SECRET_NAME, directory / KEY_NAME
    if not (secret_file.exists() and key_file.exists()):
        return make_keys(directory)
    public = base64.b64encode(read_signer(key_file).public_key_bytes).decode()
    return KeyFiles(secret_file, key_file, public)
