"""What crosses the links between datacenters."""

from __future__ import annotations

from typing import Final

from panels.parts import DC, DCS, RATE, Board, Panel, Query

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
