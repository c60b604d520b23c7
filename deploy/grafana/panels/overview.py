"""What is looked at first."""

from __future__ import annotations

from typing import Final

from panels.parts import DC, DCS, RATE, Board, Panel, Query

OVERVIEW: Final = Board(
    "p2pdist-overview",
    "p2pdist: overview",
    "Is the swarm well, and what does it spare the registries?",
    [
        Panel(
            "Hosts connected",
            "Hosts with a control connection to a tracker.",
            [Query("sum(p2pdist_hosts_connected)")],
            kind="stat",
            width=4,
            height=4,
        ),
        Panel(
            "Daemons scraped",
            "What these boards see, by role. Scrape all trackers and proxies, and a sample of peers.",
            [Query("count by (role) (p2pdist_node_info)", "{{role}}")],
            kind="stat",
            width=5,
            height=4,
        ),
        Panel(
            "Not from a registry",
            "Share of all payload that came from other hosts.",
            [
                Query(
                    'sum(p2pdist_fleet_received_bytes{source!="upstream"}) / sum(p2pdist_fleet_received_bytes)'
                )
            ],
            unit="percentunit",
            kind="stat",
            width=5,
            height=4,
        ),
        Panel(
            "Spared the registries",
            "Payload that hosts took from each other instead, since they started.",
            [Query('sum(p2pdist_fleet_received_bytes{source!~"upstream|proxy"})')],
            unit="bytes",
            kind="stat",
            width=5,
            height=4,
        ),
        Panel(
            "Hosts banned",
            "Bans for wrong answers, over all hosts. Any is worth a look.",
            [Query("sum(p2pdist_fleet_bans)")],
            kind="stat",
            width=5,
            height=4,
            warn=1,
            bad=10,
        ),
        Panel(
            "Where bytes come from",
            "Verified payload by source: `wan` is another datacenter.",
            [
                Query(
                    f"sum by (source) (rate(p2pdist_bytes_received_total{RATE}) {DC})", "{{source}}"
                )
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "How long pulls take",
            "Manifests and blobs, from the request to the last byte.",
            [
                Query(
                    f'histogram_quantile(0.5, sum by (le, kind) (rate(p2pdist_pull_duration_seconds_bucket{{outcome="served"}}{RATE})))',
                    "{{kind}} p50",
                ),
                Query(
                    f'histogram_quantile(0.99, sum by (le, kind) (rate(p2pdist_pull_duration_seconds_bucket{{outcome="served"}}{RATE})))',
                    "{{kind}} p99",
                ),
            ],
            unit="s",
            width=12,
        ),
        Panel(
            "Requests by where they were met",
            "`hit`: in the own store; `origin`: at a registry.",
            [Query(f"sum by (cache) (rate(p2pdist_blob_requests_total{RATE}) {DC})", "{{cache}}")],
            unit="reqps",
        ),
        Panel(
            "Wrong chunks",
            "By reason; `rot` is the own disk. None of them was stored or delivered.",
            [Query(f"sum by (reason) (rate(p2pdist_chunk_rejected_total{RATE}))", "{{reason}}")],
            unit="ops",
            warn=0.01,
        ),
        Panel(
            "Event loops",
            "The latest a daemon's event loop was of late: above 0.25 s everything waits.",
            [
                Query(
                    "max by (role) (p2pdist_event_loop_lag_seconds * on(instance) group_left(role) p2pdist_node_info)",
                    "{{role}}",
                )
            ],
            unit="s",
            warn=0.05,
            bad=0.25,
        ),
        Panel(
            "Degraded",
            "Daemons that do without part of the swarm, by reason; board *one host* says which it is there.",
            [Query("sum by (reason) (p2pdist_degraded)", "{{reason}}")],
            warn=1,
        ),
        Panel(
            "Proxies that hang",
            "Times that a host found one that takes questions and answers none, within the time shown.",
            [Query(f"sum by (dc) (increase(p2pdist_proxy_hangs_total[$__range]) {DC})", "{{dc}}")],
            kind="stat",
            bad=1,
        ),
        Panel(
            "Pulls cut",
            "Bodies that ended short, as no source could deliver the rest: runtimes pull again.",
            [
                Query(
                    f'sum by (dc, kind) (rate(p2pdist_pulls_total{{outcome="cut"}}{RATE}) {DC})',
                    "{{dc}} {{kind}}",
                )
            ],
            unit="ops",
            warn=0.001,
        ),
        Panel(
            "Bytes saved",
            "What clients got that their host took from no registry, beside what it did; what proxies read for "
            "all of them is on board *registry and upstreams*.",
            [
                Query(
                    f'sum(rate(p2pdist_delivered_bytes_total{{source!="upstream"}}{RATE}) {DC})',
                    "saved",
                ),
                Query(
                    f'sum(rate(p2pdist_delivered_bytes_total{{source="upstream"}}{RATE}) {DC})',
                    "from a registry",
                ),
            ],
            unit="Bps",
        ),
        Panel(
            "Rude clients",
            "Connections that daemons ended: `slow`, `crowded`; and what was no HTTP.",
            [
                Query(f"sum by (reason) (rate(p2pdist_http_dropped_total{RATE}))", "{{reason}}"),
                Query(
                    f"sum by (reason) (rate(p2pdist_http_malformed_total{RATE}))",
                    "malformed {{reason}}",
                ),
            ],
            unit="ops",
        ),
    ],
    [DCS],
)
