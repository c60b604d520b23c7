"""The replication of one proxy, put together from its settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from p2pdist.control.jobs_client import JobsClient, TrackerTls
from p2pdist.errors import ConfigError
from p2pdist.oci.reference import canonical_upstream
from p2pdist.process.identity import read_notify_secret
from p2pdist.process.identity_holder import IdentityHolder
from p2pdist.process.operator_token import operator_token
from p2pdist.process.secret_holder import SecretHolder
from p2pdist.registry.reading.entries import upstream_hosts
from p2pdist.registry_proxy.core.rules import RULES_MAX, Rule, check_rule, parse_pattern
from p2pdist.registry_proxy.manifests import ManifestService
from p2pdist.registry_proxy.notifications_http import Notifications
from p2pdist.registry_proxy.replication import Replication
from p2pdist.registry_proxy.replication_store import FILE_NAME, sqlite_replication_store
from p2pdist.settings import Replicate, Settings

_FIX: Final = "set proxy.job_trackers to the trackers' admin URLs, such as http://10.0.0.2:5209"


@dataclass(frozen=True, slots=True)
class Replicating:
    """`replication` is None for a proxy without rules."""

    replication: Replication | None
    notifications: Notifications


def read_rules(settings: Settings) -> list[Rule]:
    """Return the rules; raise ConfigError for what cannot be followed."""
    if len(settings.replicate) > RULES_MAX:
        raise ConfigError(f"more than {RULES_MAX} [[replicate]] rules")
    rules = [_rule(table, settings) for table in settings.replicate]
    if len({rule.name for rule in rules}) < len(rules):
        raise ConfigError("two [[replicate]] rules have the same name")
    if rules and not settings.proxy.job_trackers:
        raise ConfigError(f"[[replicate]] without trackers to give jobs to: {_FIX}")
    return rules


def _rule(table: Replicate, settings: Settings) -> Rule:
    where = f"replicate {table.name!r}"
    known = set(upstream_hosts(settings))
    try:
        patterns = tuple(parse_pattern(text, known) for text in table.images)
        rule = Rule(
            table.name, patterns, table.dcs, table.hosts, table.poll, table.rate, table.dc_rate,
            table.pin, table.platform, table.priority,
        )  # fmt: skip
        check_rule(rule)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    for pattern in rule.patterns:
        if pattern.upstream not in known:
            raise ConfigError(f"{where}: no [[upstream]] has the host {pattern.upstream}")
    return rule


@asynccontextmanager
async def replicating(
    settings: Settings,
    manifests: ManifestService,
    rng: Random,
    cluster: SecretHolder,
    own: IdentityHolder | None,
) -> AsyncIterator[Replicating]:
    """Run the rules for as long as the block lasts. Raises ConfigError, StoreError."""
    rules = read_rules(settings)
    secret = read_notify_secret(settings.proxy.notify_secret_file)
    upstreams, aliases = upstream_hosts(settings), _aliases(settings)
    if not rules:
        yield Replicating(None, Notifications(secret, None, upstreams=upstreams, aliases=aliases))
        return
    async with aiohttp.ClientSession() as session:
        urls = dict.fromkeys(url.rstrip("/") for url in settings.proxy.job_trackers)
        tls = None
        if own is not None:
            tls = TrackerTls(lambda: now.trackers if (now := own.spoken) else None, own.required)
        trackers = [JobsClient(url, _token(cluster), session, tls) for url in urls]

        async def renew_tokens() -> None:
            for client in trackers:
                client.token = _token(cluster)

        cluster.on_taken.append(renew_tokens)
        store = sqlite_replication_store(settings.host.state_dir / "proxy" / FILE_NAME)
        replication = Replication(rules, manifests, store, trackers, rng)
        try:
            await replication.start()
            yield Replicating(
                replication,
                Notifications(secret, replication, upstreams=upstreams, aliases=aliases),
            )
        finally:
            await replication.close()


def _token(cluster: SecretHolder) -> str:
    return operator_token(cluster.believed().first)


def _aliases(settings: Settings) -> dict[str, str]:
    """The `host[:port]` of each upstream's URL: what a registry often calls itself."""
    aliases = {}
    for upstream in settings.upstream:
        try:
            aliases[canonical_upstream(urlsplit(upstream.base_url).netloc)] = canonical_upstream(
                upstream.host
            )
        except ValueError:
            continue  # a URL that the start of the proxy refuses with its reason
    return aliases
