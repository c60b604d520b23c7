"""Checks of a configuration that go beyond one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from p2pdist.errors import ConfigError
from p2pdist.registry_proxy.replication_setup import read_rules
from p2pdist.runtime.identity import (
    proxy_keys,
    read_notify_secret,
    read_secret,
    read_signer,
    upstream_entries,
)
from p2pdist.settings import Settings


def problems(settings: Settings) -> tuple[list[str], list[str]]:
    """Return what keeps daemons from starting, and what is probably not meant."""
    errors: list[str] = []

    def attempt(check: Callable[[], Any]) -> None:
        try:
            check()
        except ConfigError as error:
            errors.append(str(error))

    attempt(lambda: read_secret(settings.cluster.secret_file))
    attempt(lambda: proxy_keys(settings))
    attempt(lambda: upstream_entries(settings, with_secrets=True))
    if settings.proxy.key_file is not None:
        attempt(lambda: read_signer(settings.proxy.key_file))
    attempt(lambda: read_rules(settings))
    if settings.proxy.notify_secret_file is not None:
        attempt(lambda: read_notify_secret(settings.proxy.notify_secret_file))
    errors += _urls(settings)
    if settings.store.low_watermark >= settings.store.high_watermark:
        errors.append("store.low_watermark must be below store.high_watermark")
    return errors, _doubts(settings)


def _urls(settings: Settings) -> list[str]:
    errors = []
    lists = {
        "proxy.trackers": (settings.proxy.trackers, ("tcp",)),
        "peer.trackers": (settings.peer.trackers, ("tcp",)),
        "proxy.job_trackers": (settings.proxy.job_trackers, ("http", "https")),
        "proxy.parents": (settings.proxy.parents, ("http", "https")),
        "peer.proxies": (settings.peer.proxies, ("http", "https")),
    }
    for name, (urls, schemes) in lists.items():
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in schemes or not parts.hostname:
                errors.append(f"{name}: {url!r} is no URL that starts with {schemes[0]}://")
    return errors


def _doubts(settings: Settings) -> list[str]:
    doubts = []
    for upstream in settings.upstream:
        if (upstream.has_account or upstream.cert_file) and upstream.access != "shared":
            doubts.append(
                f'upstream {upstream.host} has credentials but not access = "shared": '
                "nothing of it is served to anybody"
            )
        doubts += [
            f"upstream {upstream.host}: the certificate of {host} is not checked"
            for host in upstream.insecure
        ]
    if not settings.cluster.proxy_keys and settings.cluster.proxy_keys_file is None:
        doubts.append(
            "neither cluster.proxy_keys nor cluster.proxy_keys_file is set: "
            "a peer would believe no chunk map"
        )
    return doubts
