"""Makes the secret and the key that `identity` reads; puts another secret in the place of one."""

from __future__ import annotations

import base64
import enum
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from p2pdist.errors import ConfigError
from p2pdist.model.cluster_secrets import SECRETS_MAX, ClusterSecrets, parse_secrets
from p2pdist.process.files import write_whole
from p2pdist.process.identity import read_secrets, read_signer

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
        directory / SECRET_NAME: (_fresh_secret() + b"\n", 0o600),
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


class Step(enum.StrEnum):
    """Of a rotation; the next one is for when all hosts have taken up the file of the last."""

    ADD = "add"
    """A new secret behind the old one: it is believed, and not yet gone by."""
    SWAP = "swap"
    """The new one first."""
    DROP = "drop"
    """The old one is believed no more."""


def rotate_secret(path: Path, step: Step) -> ClusterSecrets:
    """Put the file of the next step in the place of the old one, with its mode and owner; return
    what it holds. Raises ConfigError where that step is not the next one."""
    path = path.resolve()  # else a link would be replaced
    changed = _after(step, read_secrets(path), path)
    lines = b"".join(secret + b"\n" for secret in changed.each)
    if parse_secrets(lines) != changed:
        raise ConfigError(f"{path} holds bytes that are no text: no line can be put to it")
    status = path.stat()
    write_whole(path, lines, mode=status.st_mode & 0o777)
    os.chown(path, status.st_uid, status.st_gid)
    return changed


def _after(step: Step, now: ClusterSecrets, path: Path) -> ClusterSecrets:
    if step is Step.ADD:
        if len(now.each) == SECRETS_MAX:
            raise ConfigError(f"{path} holds two secrets; `swap` and `drop` end that rotation")
        return ClusterSecrets((now.first, _fresh_secret()))
    if len(now.each) == 1:
        raise ConfigError(f"{path} holds one secret; a rotation begins with `add`")
    first, second = now.each
    return ClusterSecrets((second, first) if step is Step.SWAP else (first,))


def _fresh_secret() -> bytes:
    return secrets.token_hex(32).encode()
