"""The registries to read, as the settings have them: accounts, certificates, limits."""

from __future__ import annotations

from functools import partial
from typing import Final

from yarl import URL

from p2pdist.errors import ConfigError
from p2pdist.oci.credential_files import Helper, helper
from p2pdist.oci.reference import canonical_upstream
from p2pdist.process.secret_files import KEY_FILE_BYTES_MAX, read_secret_file
from p2pdist.registry.reading.credentials import (
    Credentials,
    ask_helper,
    entry_in_auth_file,
    find_helper,
    fixed,
    from_auth_file,
    from_password_file,
)
from p2pdist.registry.reading.net import UpstreamEntry
from p2pdist.registry.reading.tls import UpstreamTls
from p2pdist.settings import Settings, Upstream

CERT_FILE_BYTES_MAX: Final = 256 * 1024


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
    if upstream.access == "passthrough" and (upstream.has_account or upstream.cert_file):
        raise ConfigError(
            f'{whose}: access = "passthrough" reads with the credentials of each caller; '
            "leave its own account or certificate out"
        )
    try:
        return UpstreamEntry(
            host=canonical_upstream(upstream.host),
            url=upstream.base_url,
            credentials=_credentials(upstream),
            tls=_tls(upstream),
            access=upstream.access,  # type: ignore[arg-type]  # one of four, checked when read
            auth_hosts=upstream.auth_hosts,
            allow_private=upstream.allow_private,
            concurrency=upstream.concurrency,
        )
    except ValueError as error:
        raise ConfigError(f"{whose}: {error}") from None


def by_caller(settings: Settings) -> frozenset[str]:
    """The canonical names of those that decide by the credentials of each caller."""
    return frozenset(
        canonical_upstream(upstream.host)
        for upstream in settings.upstream
        if upstream.access == "passthrough"
    )


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
