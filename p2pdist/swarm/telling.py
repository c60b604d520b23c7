"""What a node tells of itself at the admin port: status, metrics, and stories of blobs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Literal

from aiohttp import web

from p2pdist import __version__
from p2pdist.model.handshake import OTHER, REFUSALS
from p2pdist.process.identity_holder import identity_samples, identity_status
from p2pdist.process.metrics import Sample, node_info
from p2pdist.process.proxy_key_holder import proxy_key_samples, proxy_key_status
from p2pdist.process.secret_holder import secret_samples, secret_status
from p2pdist.swarm import stories
from p2pdist.swarm.assembly import RunningNode
from p2pdist.swarm.counters import FALLBACK_REASONS, RECEIVERS, SOURCES
from p2pdist.swarm.stories import Teller


def story_routes(running: RunningNode) -> list[web.RouteDef]:
    """What the admin port tells of the last blobs in motion."""

    def teller() -> Teller:
        me = running.me()
        return Teller(me.role.value, me.host_id, me.place.dc)

    return [web.get(stories.PATH, stories.handler(running.node.core.events, teller))]


def node_status(running: RunningNode) -> dict[str, Any]:
    """What `/api/v1/status` and `p2pdist status` show; bytes are payload."""
    node, usage = running.node, running.store.usage()
    me, counters, totals = running.me(), node.counters, node.fetch_totals()
    return {
        "schema_version": 1,
        "version": __version__,
        "role": me.role.value,
        "host_id": me.host_id,
        "dc": me.place.dc,
        "rack": me.place.rack,
        "uptime_s": round(asyncio.get_running_loop().time() - running.started_s, 3),
        "exchange": str(running.exchange_address),
        "tracker_connected": running.tracker.connected,
        **identity_status(running.identity),
        **secret_status(running.secret),
        **proxy_key_status(running.proxy_keys),
        "named": running.named._asdict(),
        "links": len(node.neighbourhood.links),
        "links_sealed": running.transport.sealed,
        "links_refused": dict(running.transport.refused),
        "degraded": node.health.status(),
        "links_refused_by_others": dict(node.neighbourhood.refused_by),
        "swarms": {
            "active": sum(not a.complete for a in node.actives.values()),
            "whole": sum(b.complete for b in running.store.blobs()),
        },
        "cache_bytes": usage.bytes_used,
        "bytes_received": {source: counters.received[source] for source in SOURCES},
        "bytes_sent": {receiver: counters.sent[receiver] for receiver in RECEIVERS},
        "wasted_bytes": counters.wasted_bytes,
        "rejected": dict(counters.rejected),
        "bans": node.core.trust.bans_total,
        "fallback_bytes": dict(counters.fallbacks),
        "fallback_reasons": dict(counters.fallback_reasons),
        "hedges": totals.hedges,
        "stalls": totals.stalls,
        "steals": totals.steals,
        "escapes": totals.escapes,
    }


def node_samples(running: RunningNode) -> Iterable[Sample]:
    """The node's counters as metrics; label values are the bounded sets of `counters`."""
    node, counters, usage = running.node, running.node.counters, running.store.usage()
    totals = node.fetch_totals()
    me = running.me()
    yield node_info(me.role, me.place)
    for source in SOURCES:
        yield Sample(
            "p2pdist_bytes_received_total", "counter", "Verified payload bytes by source.",
            {"source": source}, counters.received[source],
        )  # fmt: skip
    for receiver in RECEIVERS:
        yield Sample(
            "p2pdist_bytes_sent_total", "counter", "Payload bytes sent by receiver.",
            {"receiver": receiver}, counters.sent[receiver],
        )  # fmt: skip
    for reason in ("hash", "length", "timeout", "map", "proto", "rot"):
        yield Sample(
            "p2pdist_chunk_rejected_total", "counter", "Wrong chunks and statements by reason.",
            {"reason": reason}, counters.rejected[reason],
        )  # fmt: skip
    for by, refused in (
        ("us", running.transport.refused),
        ("others", node.neighbourhood.refused_by),
    ):
        for reason in (*REFUSALS, OTHER):
            yield Sample(
                "p2pdist_links_refused_total", "counter", "Exchange links that were refused.",
                {"by": by, "reason": reason}, refused[reason],
            )  # fmt: skip
    yield Sample(
        "p2pdist_tickets_lacking_total", "counter",
        "Wishes of other hosts for what only some may read, without a ticket that is good.",
        {}, node.core.unlet_total,
    )  # fmt: skip
    sealed, all_links = running.transport.sealed, running.transport.links
    for kind, count in (("sealed", sealed), ("clear", all_links - sealed)):
        yield Sample(
            "p2pdist_links", "gauge", "Exchange links; sealed: both ends showed a certificate.",
            {"kind": kind}, count,
        )  # fmt: skip
    yield from node.health.samples()
    yield from identity_samples(running.identity)
    yield from secret_samples(running.secret)
    yield from proxy_key_samples(running.proxy_keys)
    for reason in FALLBACK_REASONS:
        yield Sample(
            "p2pdist_fallback_bytes_total", "counter", "Bytes from outside of the swarm by reason.",
            {"reason": reason}, counters.fallback_reasons[reason],
        )  # fmt: skip
    for cache in ("hit", "peer", "dc", "origin"):
        yield Sample(
            "p2pdist_blob_requests_total", "counter", "Registry requests by where they were met.",
            {"role": running.me().role.value, "cache": cache}, counters.blob_requests[cache],
        )  # fmt: skip
    bans = node.core.trust.bans_total
    plain: list[tuple[str, Literal["counter", "gauge"], str, float]] = [
        ("wasted_bytes_total", "counter", "Payload for nothing.", counters.wasted_bytes),
        ("peer_bans_total", "counter", "Hosts banned for wrong answers.", bans),
        ("hedges_total", "counter", "Chunks asked of a second source.", totals.hedges),
        ("escapes_total", "counter", "Runs asked of a proxy that did not offer.", totals.escapes),
        ("stalls_total", "counter", "Neighbours given up as silent.", totals.stalls),
        ("steals_total", "counter", "Runs moved to a faster neighbour.", totals.steals),
        (
            "proxy_hangs_total", "counter", "Times a proxy was found to hang.",
            node.proxy_links.answering.hangs_total,
        ),
        ("revocations_total", "counter", "Chunk maps taken back.", node.core.revocations),
        (
            "host_ids_given_up_total", "counter", "Host ids given up as another host has them.",
            running.own_id.renewed_total,
        ),
        ("peers_connected", "gauge", "Live exchange links.", len(node.neighbourhood.links)),
        ("tracker_connected", "gauge", "1 while a tracker is reached.", running.tracker.connected),
        ("cache_bytes", "gauge", "Bytes in the store.", usage.bytes_used),
        ("cache_max_bytes", "gauge", "Bytes that the store may hold.", usage.bytes_max),
        (
            "store_degraded", "gauge", "1 while something passes through unstored.",
            node.store_trouble() is not None,
        ),
        (
            "prewarm_received_bytes_total", "counter", "Verified payload fetched as bulk.",
            node.core.bulk.received_bytes,
        ),
        (
            "bulk_paused_seconds_total", "counter", "Time that bulk waited for pulls.",
            node.core.bulk.gate.paused_s,
        ),
        ("store_open_files", "gauge", "Files of blobs that are open.", usage.open_files),
        (
            "cache_aside_bytes", "gauge", "Of that: blobs whose map does not hold here.",
            usage.aside_bytes,
        ),
        (
            "cache_evicted_bytes_total", "counter", "Bytes evicted from the store.",
            usage.evicted_bytes_total,
        ),
    ]  # fmt: skip
    for name, kind, text, value in plain:
        yield Sample(f"p2pdist_{name}", kind, text, {}, float(value))
