"""Makes the Grafana boards: `python deploy/grafana/boards.py` writes `dashboards/*.json` anew.

Which datacenter and role a series belongs to comes from `p2pdist_node_info`, so the boards work with
whatever labels a scrape configuration adds.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

DIRECTORY: Final = Path(__file__).parent / "dashboards"
WIDTH: Final = 24
DC: Final = '* on(instance) group_left(dc) p2pdist_node_info{dc=~"$dc"}'
RATE: Final = "[$__rate_interval]"

Kind = Literal["timeseries", "stat", "table"]


@dataclass(frozen=True, slots=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    title: str
    help: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 7
    warn: float | None = None
    """From here on it is shown orange, from `bad` on red."""
    bad: float | None = None


@dataclass(frozen=True, slots=True)
class Variable:
    name: str
    query: str
    many: bool = True


@dataclass(frozen=True, slots=True)
class Board:
    uid: str
    title: str
    help: str
    panels: Sequence[Panel]
    variables: Sequence[Variable] = field(default_factory=tuple)


DCS: Final = Variable("dc", "label_values(p2pdist_node_info, dc)")

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

DATACENTERS: Final = Board(
    "p2pdist-datacenters",
    "p2pdist: datacenters and links",
    "What crosses the links between datacenters, and are they in step?",
    [
        Panel(
            "Into each datacenter from others",
            "Payload that crossed a link between datacenters.",
            [
                Query(
                    f'sum by (dc) (rate(p2pdist_bytes_received_total{{source="wan"}}{RATE}) {DC})',
                    "{{dc}}",
                )
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "Into each datacenter from registries",
            "Payload read from upstreams.",
            [
                Query(
                    f'sum by (dc) (rate(p2pdist_bytes_received_total{{source="upstream"}}{RATE}) {DC})',
                    "{{dc}}",
                )
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "Copies from outside",
            "Bytes that entered a datacenter for each byte that its peers took in from within: small is good.",
            [
                Query(
                    f'sum by (dc) (p2pdist_bytes_received_total{{source=~"wan|upstream"}} {DC}) / '
                    f'sum by (dc) (p2pdist_bytes_received_total{{source=~"rack|dc|proxy"}} {DC})',
                    "{{dc}}",
                )
            ],
            unit="percentunit",
        ),
        Panel(
            "Exchanged within",
            "Payload from hosts of the same datacenter.",
            [
                Query(
                    f'sum by (dc) (rate(p2pdist_bytes_received_total{{source=~"rack|dc"}}{RATE}) {DC})',
                    "{{dc}}",
                )
            ],
            unit="Bps",
        ),
        Panel(
            "Hosts by datacenter",
            "Connected to the datacenter's tracker.",
            [Query(f"sum by (dc) (p2pdist_hosts_connected {DC})", "{{dc}}")],
        ),
        Panel(
            "Trackers reached",
            "Trackers of other datacenters that each one can ask.",
            [Query(f"sum by (dc) (p2pdist_trackers_federated {DC})", "{{dc}}")],
        ),
        Panel(
            "Leases",
            "Rights to fetch a blob from outside that are in force.",
            [Query(f"sum by (dc) (p2pdist_leases {DC})", "{{dc}}")],
        ),
        Panel(
            "Behind by",
            "Age of the oldest push that is not yet everywhere its rule wants it.",
            [Query("max by (rule, dc) (p2pdist_replication_lag_seconds)", "{{rule}} {{dc}}")],
            unit="s",
            warn=300,
            bad=3600,
        ),
        Panel(
            "Images behind",
            "Images that are not in step.",
            [Query("max by (rule, dc) (p2pdist_replication_behind)", "{{rule}} {{dc}}")],
        ),
        Panel(
            "Put off by trackers",
            "Hosts told when to come back, connections dropped unread (both: a storm that is being "
            "served), hosts beyond what a tracker holds.",
            [
                Query(
                    f"sum by (dc) (rate(p2pdist_tracker_{name}_total{RATE}) {DC})",
                    f"{{{{dc}}}} {text}",
                )
                for name, text in (
                    ("sent_away", "later"),
                    ("dropped", "dropped"),
                    ("hosts_refused", "refused"),
                )
            ],
            unit="ops",
        ),
    ],
    [DCS],
)

RELEASE: Final = Board(
    "p2pdist-release",
    "p2pdist: a release in progress",
    "Who is ready, who is not, and will it be in time?",
    [
        Panel(
            "Ready",
            "Share of the hosts that hold the release and proved it.",
            [
                Query(
                    'sum by (prewarm) (p2pdist_prewarm_hosts{prewarm=~"$prewarm", state=~"ready|unpacked"}) / '
                    'sum by (prewarm) (p2pdist_prewarm_hosts{prewarm=~"$prewarm"})',
                    "{{prewarm}}",
                )
            ],
            unit="percentunit",
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Failed or lost",
            "`p2pdist prewarm show JOB` names them, with the reason.",
            [
                Query(
                    'sum by (prewarm) (p2pdist_prewarm_hosts{prewarm=~"$prewarm", state=~"failed|lost"})',
                    "{{prewarm}}",
                )
            ],
            kind="stat",
            width=6,
            height=4,
            warn=1,
            bad=10,
        ),
        Panel(
            "Time to go",
            "Missing bytes at the rate of the last seconds; nothing while nothing arrives.",
            [
                Query(
                    'max by (prewarm) (p2pdist_prewarm_eta_seconds{prewarm=~"$prewarm"})',
                    "{{prewarm}}",
                )
            ],
            unit="s",
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Until the deadline",
            "Jobs with a deadline only.",
            [
                Query(
                    'p2pdist_prewarm_deadline_timestamp_seconds{prewarm=~"$prewarm"} - time()',
                    "{{prewarm}}",
                )
            ],
            unit="s",
            kind="stat",
            width=6,
            height=4,
        ),
        Panel(
            "Hosts by state",
            "Waiting for their wave, fetching, ready, unpacked, failed, lost.",
            [
                Query(
                    'sum by (state) (p2pdist_prewarm_hosts{prewarm=~"$prewarm", dc=~"$dc"})',
                    "{{state}}",
                )
            ],
            width=12,
        ),
        Panel(
            "Ready by datacenter",
            "Share of each datacenter's hosts.",
            [
                Query(
                    'p2pdist:prewarm_ready:ratio{prewarm=~"$prewarm", dc=~"$dc"}',
                    "{{dc}} {{prewarm}}",
                )
            ],
            unit="percentunit",
            width=12,
        ),
        Panel(
            "Missing",
            "What the hosts lack, all together.",
            [
                Query(
                    'sum by (dc) (p2pdist_prewarm_missing_bytes{prewarm=~"$prewarm", dc=~"$dc"})',
                    "{{dc}}",
                )
            ],
            unit="bytes",
        ),
        Panel(
            "Fetched ahead of need",
            "Payload at the scraped peers and proxies.",
            [
                Query(
                    f"sum by (dc) (rate(p2pdist_prewarm_received_bytes_total{RATE}) {DC})", "{{dc}}"
                )
            ],
            unit="Bps",
        ),
        Panel(
            "Held back for pulls",
            "Share of the time that it waited because a runtime pulled.",
            [Query(f"avg by (dc) (rate(p2pdist_bulk_paused_seconds_total{RATE}) {DC})", "{{dc}}")],
            unit="percentunit",
        ),
        Panel(
            "Proofs",
            "Asked of hosts: wrong and missing ones take the state away.",
            [Query(f"sum by (result) (rate(p2pdist_prewarm_proofs_total{RATE}))", "{{result}}")],
            unit="ops",
        ),
        Panel(
            "Withdrawn",
            "Hosts that were ready and are no more.",
            [Query("sum(increase(p2pdist_prewarm_withdrawn_total[$__range]))")],
            kind="stat",
            width=4,
        ),
        Panel(
            "Deadlines missed",
            "Jobs, within the time shown.",
            [Query("sum(increase(p2pdist_prewarm_deadlines_missed_total[$__range]))")],
            kind="stat",
            width=4,
            bad=1,
        ),
        Panel(
            "Jobs",
            "All that the trackers know, by state.",
            [Query("sum by (state) (p2pdist_prewarm_jobs)", "{{state}}")],
        ),
    ],
    [DCS, Variable("prewarm", "label_values(p2pdist_prewarm_hosts, prewarm)")],
)

HOST: Final = Board(
    "p2pdist-host",
    "p2pdist: one host",
    "What is this daemon doing?",
    [
        Panel(
            "Received",
            "Verified payload by source.",
            [
                Query(
                    f'sum by (source) (rate(p2pdist_bytes_received_total{{instance=~"$instance"}}{RATE}))',
                    "{{source}}",
                )
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "Sent",
            "Payload by receiver.",
            [
                Query(
                    f'sum by (receiver) (rate(p2pdist_bytes_sent_total{{instance=~"$instance"}}{RATE}))',
                    "{{receiver}}",
                )
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "Store",
            "Bytes held; those that are pinned; those kept aside, as their map does not hold here.",
            [
                Query('sum(p2pdist_cache_bytes{instance=~"$instance"})', "held"),
                Query('sum(p2pdist_pinned_bytes{instance=~"$instance"})', "pinned"),
                Query('sum(p2pdist_cache_aside_bytes{instance=~"$instance"})', "aside"),
            ],
            unit="bytes",
        ),
        Panel(
            "Links",
            "Live connections to other nodes, and to a tracker (1 or 0).",
            [
                Query('sum(p2pdist_peers_connected{instance=~"$instance"})', "nodes"),
                Query('min(p2pdist_tracker_connected{instance=~"$instance"})', "tracker"),
            ],
        ),
        Panel(
            "Longest wait of a pull",
            "The longest silence within a request, p99: what people feel.",
            [
                Query(
                    f'histogram_quantile(0.99, sum by (le, kind) (rate(p2pdist_pull_longest_wait_seconds_bucket{{instance=~"$instance"}}{RATE})))',
                    "{{kind}}",
                )
            ],
            unit="s",
        ),
        Panel(
            "Second tries",
            "Chunks asked twice, silent neighbours, runs asked of a proxy in need, runs moved to a faster neighbour.",
            [
                Query(f'sum(rate(p2pdist_hedges_total{{instance=~"$instance"}}{RATE}))', "hedges"),
                Query(f'sum(rate(p2pdist_stalls_total{{instance=~"$instance"}}{RATE}))', "stalls"),
                Query(
                    f'sum(rate(p2pdist_escapes_total{{instance=~"$instance"}}{RATE}))', "escapes"
                ),
                Query(f'sum(rate(p2pdist_steals_total{{instance=~"$instance"}}{RATE}))', "steals"),
            ],
            unit="ops",
        ),
        Panel(
            "For nothing",
            "Payload that came twice or after a cancel.",
            [Query(f'sum(rate(p2pdist_wasted_bytes_total{{instance=~"$instance"}}{RATE}))')],
            unit="Bps",
        ),
        Panel(
            "Prewarm orders",
            "By state.",
            [Query('sum by (state) (p2pdist_prewarm_orders{instance=~"$instance"})', "{{state}}")],
        ),
        Panel(
            "Event loop",
            "How late it was last.",
            [Query('max(p2pdist_event_loop_lag_seconds{instance=~"$instance"})')],
            unit="s",
            warn=0.05,
            bad=0.25,
        ),
        Panel(
            "Evicted",
            "Bytes that made room for others.",
            [Query(f'sum(rate(p2pdist_cache_evicted_bytes_total{{instance=~"$instance"}}{RATE}))')],
            unit="Bps",
        ),
        Panel(
            "Disk full",
            "1 while bodies pass through unstored.",
            [Query('max(p2pdist_store_degraded{instance=~"$instance"})')],
            kind="stat",
            width=4,
            bad=1,
        ),
        Panel(
            "Past the swarm",
            "Bytes from outside of the swarm by reason: but for `proxy_away`, a proxy was there.",
            [
                Query(
                    f'sum by (reason) (rate(p2pdist_fallback_bytes_total{{instance=~"$instance"}}{RATE}))',
                    "{{reason}}",
                )
            ],
            unit="Bps",
        ),
        Panel(
            "Degraded",
            "1 for each reason that keeps it from working as it should; `p2pdist status` says the fix.",
            [Query('p2pdist_degraded{instance=~"$instance"}', "{{reason}}")],
        ),
        Panel(
            "Clock",
            "How far the clocks of tracker and proxy are ahead of this host's.",
            [Query('p2pdist_clock_skew_seconds{instance=~"$instance"}', "{{to}}")],
            unit="s",
        ),
        Panel(
            "Links refused",
            "By this host or by others; `full`: more hosts than `links_max`.",
            [
                Query(
                    f'sum by (by, reason) (rate(p2pdist_links_refused_total{{instance=~"$instance"}}{RATE}))',
                    "{{by}} {{reason}}",
                )
            ],
            unit="ops",
        ),
        Panel(
            "Open files",
            "Of blobs: those in use and the last ones that were, an eighth of what is allowed at most.",
            [Query('sum(p2pdist_store_open_files{instance=~"$instance"})')],
        ),
    ],
    [Variable("instance", "label_values(p2pdist_node_info, instance)", many=False)],
)

UPSTREAMS: Final = Board(
    "p2pdist-upstreams",
    "p2pdist: registry and upstreams",
    "How do the registries answer, and how much is asked of them?",
    [
        Panel(
            "Answers",
            "Requests by registry and class of status, 429 apart; `none` is no answer at all.",
            [
                Query(
                    f'sum by (upstream, code) (rate(p2pdist_upstream_requests_total{{upstream=~"$upstream"}}{RATE}))',
                    "{{upstream}} {{code}}",
                )
            ],
            unit="reqps",
            width=12,
        ),
        Panel(
            "Errors",
            "Share of the requests that a registry answered with 5xx, 429 or not at all.",
            [Query('p2pdist:upstream_errors:ratio5m{upstream=~"$upstream"}', "{{upstream}}")],
            unit="percentunit",
            width=12,
            warn=0.01,
            bad=0.05,
        ),
        Panel(
            "Read",
            "Bytes of blobs and manifests.",
            [
                Query(
                    f'sum by (upstream) (rate(p2pdist_upstream_payload_bytes_total{{upstream=~"$upstream"}}{RATE}))',
                    "{{upstream}}",
                )
            ],
            unit="Bps",
        ),
        Panel(
            "Pulls left",
            "Where a registry says how many it still grants.",
            [
                Query(
                    'min by (upstream) (p2pdist_upstream_ratelimit_remaining{upstream=~"$upstream"})',
                    "{{upstream}}",
                )
            ],
        ),
        Panel(
            "Given to the local side for each byte read",
            "How often a byte of a registry was used.",
            [
                Query(
                    "sum(p2pdist_fleet_received_bytes) / sum(p2pdist_upstream_payload_bytes_total)"
                )
            ],
            unit="none",
            kind="stat",
        ),
        Panel(
            "Notifications",
            "Pushes that registries told of, by what became of them.",
            [
                Query(
                    f"sum by (kind, result) (rate(p2pdist_notifications_total{RATE}))",
                    "{{kind}} {{result}}",
                )
            ],
            unit="ops",
        ),
        Panel(
            "Waiting for a job",
            "Images that no tracker has been given yet.",
            [Query("sum(p2pdist_replication_queue)")],
        ),
        Panel(
            "Given to trackers",
            "By rule; failed ones were given up.",
            [
                Query(
                    f"sum by (rule, result) (rate(p2pdist_replications_total{RATE}))",
                    "{{rule}} {{result}}",
                )
            ],
            unit="ops",
        ),
        Panel(
            "Chunk maps taken back",
            "A registry's bytes did not have the digest that it gives them: `upstream.wrong_digest` names them.",
            [Query(f"sum by (dc) (rate(p2pdist_revocations_total{RATE}) {DC})", "{{dc}}")],
            unit="ops",
        ),
        Panel(
            "Names that did not resolve",
            "Registries reached by their last good address, for 10 minutes: then nothing reaches them.",
            [
                Query(
                    f"sum by (dc) (rate(p2pdist_upstream_last_good_address_total{RATE}) {DC})",
                    "{{dc}}",
                )
            ],
            unit="ops",
        ),
    ],
    [Variable("upstream", "label_values(p2pdist_upstream_requests_total, upstream)")],
)

BOARDS: Final = (OVERVIEW, DATACENTERS, RELEASE, HOST, UPSTREAMS)


def render(board: Board) -> dict[str, Any]:
    """The board as Grafana imports it (schema 39, Grafana 10 and later)."""
    panels, x, y, row = [], 0, 0, 0
    for number, panel in enumerate(board.panels, 1):
        if x + panel.width > WIDTH:
            x, y, row = 0, y + row, 0
        place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
        panels.append({"id": number, "gridPos": place, **_panel(panel)})
        x, row = x + panel.width, max(row, panel.height)
    datasource = {
        "name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus",
    }  # fmt: skip
    return {
        "uid": board.uid,
        "title": board.title,
        "description": board.help,
        "tags": ["p2pdist"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [datasource, *map(_variable, board.variables)]},
        "links": [
            {"type": "dashboards", "tags": ["p2pdist"], "title": "p2pdist", "asDropdown": True}
        ],
        "panels": panels,
    }


def _panel(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": "orange", "value": panel.warn}] if panel.warn is not None else []
    steps += [{"color": "red", "value": panel.bad}] if panel.bad is not None else []
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit,
                "min": 0,
                "thresholds": {"mode": "absolute", "steps": steps},
            },
            "overrides": [],
        },
        "targets": [
            {"refId": chr(ord("A") + at), "expr": query.expr, "legendFormat": query.legend}
            for at, query in enumerate(panel.queries)
        ],
    }


def _variable(variable: Variable) -> dict[str, Any]:
    return {
        "name": variable.name,
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": variable.many,
        "includeAll": variable.many,
        "allValue": ".*" if variable.many else None,
    }


def text_of(board: Board) -> str:
    return json.dumps(render(board), indent=1) + "\n"


def main() -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for board in BOARDS:
        (DIRECTORY / f"{board.uid}.json").write_text(text_of(board))


if __name__ == "__main__":
    main()
