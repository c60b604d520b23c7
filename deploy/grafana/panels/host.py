"""One daemon."""

from __future__ import annotations

from typing import Final

from panels.parts import RATE, Board, Panel, Query, Variable

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
