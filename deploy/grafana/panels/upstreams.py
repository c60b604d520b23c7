"""What is asked of the registries."""

from __future__ import annotations

from typing import Final

from panels.parts import DC, DCS, RATE, Board, Panel, Query, Variable

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
        Panel(
            "Layers indexed",
            "Layers brought in, by whether parts of them can be read from now on; `unfit` ones are pulled as ever.",
            [
                Query(
                    f"sum by (result) (rate(p2pdist_layer_indexes_total{RATE}) {DC})", "{{result}}"
                )
            ],
            unit="ops",
            width=12,
        ),
        Panel(
            "Bytes of indexes",
            "Of the layers that got an index, and of their indexes: under a hundredth.",
            [
                Query(
                    f"sum by (kind) (rate(p2pdist_layer_index_bytes_total{RATE}) {DC})", "{{kind}}"
                )
            ],
            unit="Bps",
            width=12,
        ),
    ],
    [DCS, Variable("upstream", "label_values(p2pdist_upstream_requests_total, upstream)")],
)
