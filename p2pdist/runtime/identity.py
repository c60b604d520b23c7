"""Secrets and keys from the files that the settings name."""

from __future__ import annotations

import base64
from functools import partial
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from yarl import URL

from p2pdist.errors import ConfigError
from p2pdist.model.handshake import SECRET_BYTES_MIN
from p2pdist.model.statements import Signer
from p2pdist.oci.credential_files import Helper, helper
from p2pdist.oci.reference import canonical_upstream
from p2pdist.runtime.credentials import (
    Credentials,
    ask_helper,
    entry_in_auth_file,
    find_helper,
    fixed,
    from_auth_file,
    from_password_file,
)
from p2pdist.runtime.secret_files import read_secret_file, read_small_file
from p2pdist.runtime.upstream_net import UpstreamEntry
from p2pdist.runtime.upstream_tls import UpstreamTls
from p2pdist.settings import Settings, Upstream

KEY_FILE_BYTES_MAX: Final = 16 * 1024  # an RSA key of 4096 bits has 3.3 kB in PEM
CERT_FILE_BYTES_MAX: Final = 256 * 1024
PUBLIC_KEY_BYTES: Final = 32


def read_secret(path: Path | None) -> bytes:
    """Return the cluster secret; raise ConfigError for a file that is missing, short or open."""
    if path is None:
        raise ConfigError("cluster.secret_file is not set; `p2pdist keys init` makes one")
    secret = _read_private(path, "cluster.secret_file").strip()
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(f"{path}: a cluster secret has at least {SECRET_BYTES_MIN} bytes")
    return secret


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


def upstream_entries(settings: Settings, *, with_secrets: bool) -> list[UpstreamEntry]:
    """The registries to read. Without secrets (a peer) those that need credentials are left out.

    Raises ConfigError for what is wrong, two tables for one registry included.
    """
    upstream_hosts(settings)
    return [
        _entry(upstream)
        for upstream in settings.upstream
        if with_secrets or not (upstream.has_account or upstream.cert_file)
    ]


def _entry(upstream: Upstream) -> UpstreamEntry:
    """Raises ConfigError for what is wrong already; files and helpers are asked again later."""
    whose = f"upstream {upstream.host}"
    try:
        return UpstreamEntry(
            host=canonical_upstream(upstream.host),
            url=upstream.base_url,
            credentials=_credentials(upstream),
            tls=_tls(upstream),
            access=upstream.access,  # type: ignore[arg-type]  # one of three, checked when read
            auth_hosts=upstream.auth_hosts,
            allow_private=upstream.allow_private,
            concurrency=upstream.concurrency,
        )
    except ValueError as error:
        raise ConfigError(f"{whose}: {error}") from None


def _credentials(upstream: Upstream) -> Credentials | None:
    """Raises ValueError for an account that cannot be there."""
    host = upstream.host
    given = [
        key for key in ("username", "auth_file", "credential_helper") if getattr(upstream, key)
    ]
    if len(given) > 1:
        raise ValueError(f"{' and '.join(given)} name two accounts; leave one")
    if upstream.username:
        if upstream.password_file is None:
            return fixed(upstream.username, "")
        read = partial(from_password_file, upstream.username, upstream.password_file)
        read()
    elif upstream.auth_file is not None:
        read = partial(from_auth_file, upstream.auth_file, host)
        found = entry_in_auth_file(upstream.auth_file, host)
        if isinstance(found, Helper):
            find_helper(found)
    elif upstream.credential_helper:
        asked = helper(upstream.credential_helper, host)
        find_helper(asked)
        read = partial(ask_helper, asked)
    else:
        return None
    return Credentials(host, read)


def _tls(upstream: Upstream) -> UpstreamTls | None:
    """Raises ValueError for files that are none of a certificate or key."""
    if upstream.cert_file is None and upstream.cert_key_file is not None:
        raise ValueError("cert_key_file without cert_file")
    if upstream.cert_key_file is not None:  # OpenSSL reads it itself, and looks at no permission
        read_secret_file(upstream.cert_key_file, KEY_FILE_BYTES_MAX)
    elif upstream.cert_file is not None:
        read_secret_file(upstream.cert_file, CERT_FILE_BYTES_MAX)  # its key lies in it
    if not (upstream.ca_file or upstream.cert_file or upstream.insecure):
        return None
    url = URL(upstream.base_url)
    return UpstreamTls(
        (url.host or "", url.port or 0),
        ca_file=upstream.ca_file,
        cert_file=upstream.cert_file,
        cert_key_file=upstream.cert_key_file,
        insecure=upstream.insecure,
    )


def upstream_hosts(settings: Settings) -> list[str]:
    """The canonical names that clients may ask for; raise ConfigError for one that is there twice.

    The second table would take the place of the first one, account and all.
    """
    hosts: dict[str, str] = {}
    for upstream in settings.upstream:
        try:
            host = canonical_upstream(upstream.host)
        except ValueError as error:
            raise ConfigError(f"upstream {upstream.host}: {error}") from None
        if host in hosts:
            spellings = " and ".join(dict.fromkeys((hosts[host], upstream.host)))
            raise ConfigError(f"two [[upstream]] tables for one registry, {spellings}; leave one")
        hosts[host] = upstream.host
    return list(hosts)


def _read_private(path: Path, setting: str) -> bytes:
    try:
        return read_secret_file(path, KEY_FILE_BYTES_MAX)
    except ValueError as error:
        raise ConfigError(f"{setting}: {error}") from None
