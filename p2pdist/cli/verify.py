"""Checks of a configuration that go beyond one value."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from yarl import URL

from p2pdist.errors import ConfigError
from p2pdist.model.members import Role
from p2pdist.model.private_places import parse_ip
from p2pdist.process.ca import read_ca
from p2pdist.process.clock import unix_s
from p2pdist.process.host_identity import host_identity
from p2pdist.process.identity import proxy_keys, read_notify_secret, read_secret, read_signer
from p2pdist.registry.reading.entries import by_caller, upstream_entries, upstream_hosts
from p2pdist.registry.reading.net import UpstreamEntry
from p2pdist.registry_proxy.replication_setup import read_rules
from p2pdist.settings import Settings
from p2pdist.tracker.joining import join_address

# What lies in a store is whole layers; a number without a unit is bytes.
ROOM_DOUBTFUL_BYTES: Final = 1_000_000_000


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
    for role in Role:  # one file serves all daemons: here are those of its host
        if getattr(settings, role.value).identity_dir is not None:
            attempt(partial(host_identity, settings, role))
    if settings.tracker.ca_dir is not None:
        attempt(partial(read_ca, settings.tracker.ca_dir))
    attempt(partial(join_address, settings))
    errors += _unidentified(settings)
    attempt(lambda: upstream_hosts(settings))
    entries: list[UpstreamEntry] = []
    for upstream in settings.upstream:  # one by one: the first fault hides no other
        alone = replace(settings, upstream=(upstream,))
        attempt(partial(_take_entries, alone, entries))
    if settings.proxy.key_file is not None:
        attempt(lambda: read_signer(settings.proxy.key_file))
    attempt(lambda: read_rules(settings))
    if settings.proxy.notify_secret_file is not None:
        attempt(lambda: read_notify_secret(settings.proxy.notify_secret_file))
    if settings.store.low_watermark >= settings.store.high_watermark:
        errors.append("store.low_watermark must be below store.high_watermark")
    return list(dict.fromkeys(errors)), [*_doubts(settings), *_out_of_reach(entries)]


def _take_entries(settings: Settings, entries: list[UpstreamEntry]) -> None:
    entries += upstream_entries(settings, with_secrets=True)


def _unidentified(settings: Settings) -> Iterator[str]:
    """Daemons that would not start for want of a certificate. One alone may be missing: who runs
    on a host is not known here."""
    if settings.cluster.require_identity and not _identified(settings, *Role):
        named = ", ".join(f"{role.value}.identity_dir" for role in Role)
        yield f"cluster.require_identity is set, but none of {named} is: no daemon starts"
    if settings.tracker.ca_dir is not None and not _identified(settings, Role.TRACKER):
        yield "tracker.ca_dir is set, but tracker.identity_dir is not"


def _identified(settings: Settings, *roles: Role) -> bool:
    return any(getattr(settings, role.value).identity_dir is not None for role in roles)


def _doubts(settings: Settings) -> list[str]:
    doubts = list(_ended(settings))
    deciding = () if _identified(settings, Role.PROXY, Role.PEER) else sorted(by_caller(settings))
    doubts += [
        f'upstream {host} has access = "passthrough", and neither proxy.identity_dir nor '
        "peer.identity_dir is set: its layers never go from host to host, each host gets them from "
        "a proxy (docs/install.md, Certificates for hosts)"
        for host in deciding
    ]
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
    if settings.store.max_bytes < ROOM_DOUBTFUL_BYTES:
        doubts.append(
            f"store.max_bytes is {settings.store.max_bytes} bytes: larger layers are not kept"
        )
    if not settings.cluster.proxy_keys and settings.cluster.proxy_keys_file is None:
        doubts.append(
            "neither cluster.proxy_keys nor cluster.proxy_keys_file is set: "
            "a peer would believe no chunk map"
        )
    return doubts


def _ended(settings: Settings) -> Iterator[str]:
    """Certificates with which daemons start, but are not believed."""
    for role in Role:
        setting = f"{role.value}.identity_dir"
        if getattr(settings, role.value).identity_dir is None:
            continue
        with contextlib.suppress(ConfigError):  # which is an error of its own
            own = host_identity(settings, role)
            if own is not None and (fault := own.says.fault_at(unix_s())):
                yield f"{setting}: the certificate of {own.identity} {fault}"
            if own is not None and (why := own.revoked.why(own.identity.host_id)):
                yield f"{setting}: {why}"


def _out_of_reach(entries: Iterable[UpstreamEntry]) -> Iterator[str]:
    """Addresses that a registry is, or sends us to, and that would be refused when asked."""
    for entry in entries:
        url = URL(entry.url)
        places = [(url.host or "", url.port or 0, "url")]
        places += [(host, url.port or 0, "auth_hosts") for host in entry.auth_hosts]
        for host, port, key in places:
            address = parse_ip(host.strip("[]"))
            if address is None or entry.reach.allows(str(address), port, address):
                continue
            never = address.is_link_local or address.is_multicast or address.is_unspecified
            cause = "is never asked" if never else "is private and not named in allow_private"
            yield f"upstream {entry.host}: {key} has {host}, which {cause}"
