"""Secrets and keys from the files that the settings name."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from p2pdist.errors import ConfigError
from p2pdist.model.cluster_secrets import SECRET_BYTES_MIN, ClusterSecrets, parse_secrets
from p2pdist.model.statements import Signer
from p2pdist.process.secret_files import KEY_FILE_BYTES_MAX, read_secret_file, read_small_file
from p2pdist.settings import Settings

PUBLIC_KEY_BYTES: Final = 32


def read_secrets(path: Path | None) -> ClusterSecrets:
    """Return the cluster secrets; raise ConfigError for a file that is missing or no good."""
    if path is None:
        raise ConfigError("cluster.secret_file is not set; `p2pdist keys init` makes one")
    try:
        return parse_secrets(_read_private(path, "cluster.secret_file"))
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from None


def read_secret(path: Path | None) -> bytes:
    """Return the first of them, for what is derived from one; raise ConfigError likewise."""
    return read_secrets(path).first


def read_notify_secret(path: Path | None) -> bytes | None:
    """Return the secret of push notifications, None where there is none; raise ConfigError."""
    if path is None:
        return None
    secret = _read_private(path, "proxy.notify_secret_file").strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"{path}: a notification secret has at least {SECRET_BYTES_MIN} bytes")
    return secret


def read_signer(path: Path | None) -> Signer:
    """Return the proxy's signing key; raise ConfigError where there is none."""
    if path is None:
        raise ConfigError("proxy.key_file is not set; `p2pdist keys init` makes one")
    try:
        key = load_pem_private_key(_read_private(path, "proxy.key_file"), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no private key in PEM: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is no Ed25519 key; `p2pdist keys init` makes one")
    return Signer(key)


def proxy_keys(settings: Settings) -> list[bytes]:
    """Return the public keys to believe, those of the file last; raise ConfigError for one that is
    none and for a file that is missing, empty or open to change by others."""
    cluster = settings.cluster
    keys = [_public_key(text, "cluster.proxy_keys") for text in cluster.proxy_keys]
    if cluster.proxy_keys_file is not None:
        keys += _read_public_keys(cluster.proxy_keys_file)
    return keys


def _read_public_keys(path: Path) -> list[bytes]:
    setting = "cluster.proxy_keys_file"
    try:
        data, status = read_small_file(path, KEY_FILE_BYTES_MAX)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
    if status.st_mode & 0o022:  # whoever may add a key here is a proxy
        raise ConfigError(f"{setting}: {path} may be changed by others; run: chmod go-w {path}")
    lines = [line.strip() for line in data.decode(errors="replace").splitlines()]
    texts = [line for line in lines if line and not line.startswith("#")]
    if not texts:
        raise ConfigError(f"{setting}: {path} holds no key")
    return [_public_key(text, f"{setting}: {path}") for text in texts]


def _public_key(text: str, setting: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except ValueError:  # binascii.Error, or text that is not ASCII
        raw = b""
    if len(raw) != PUBLIC_KEY_BYTES:
        raise ConfigError(f"{setting}: {text[:60]!r} is no base64 of 32 bytes")
    return raw


def _read_private(path: Path, setting: str) -> bytes:
    try:
        return read_secret_file(path, KEY_FILE_BYTES_MAX)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
