"""Containers that start before their layers are here."""

from __future__ import annotations

from typing import Final

from panels.parts import DC, DCS, RATE, Board, Panel, Query

LAZY: Final = Board(
    "p2pdist-lazy",
    "p2pdist: early starts",
    "Do containers that started before their layers were here get what they read?",
    [
        Panel(
            "Reads that wait longest",
            "By host, now: a container stands still there. After a minute it gets an error.",
            [Query(f"topk(10, p2pdist_lazy_oldest_wait_seconds {DC})", "{{instance}}")],
            unit="s",
            width=12,
            warn=5,
            bad=10,
        ),
        Panel(
            "How long reads wait",
            "Of those that waited for bytes from the mirror of their host.",
            [
                Query(
                    f"histogram_quantile({q}, sum by (le) (rate(p2pdist_lazy_wait_seconds_bucket{RATE}) {DC}))",
                    legend,
                )
                for q, legend in ((0.5, "p50"), (0.99, "p99"))
            ],
            unit="s",
            width=12,
        ),
        Panel(
            "Reads that failed",
            "Containers got an error for them.",
            [Query(f'sum(increase(p2pdist_lazy_reads_total{{outcome="failed"}}[$__range]) {DC})')],
            kind="stat",
            width=4,
            bad=1,
        ),
        Panel(
            "Reads",
            "Met from memory, or waited for (demand misses); the kernel's cache hides most.",
            [
                Query(
                    f"sum by (outcome) (rate(p2pdist_lazy_reads_total{RATE}) {DC})",
                    "{{outcome}}",
                )
            ],
            unit="ops",
            width=10,
        ),
        Panel(
            "Images asked for",
            "Shown before they were here, or declined: pulled as ever.",
            [
                Query(
                    f"sum by (outcome) (rate(p2pdist_lazy_images_total{RATE}) {DC})",
                    "{{outcome}}",
                )
            ],
            unit="ops",
            width=10,
        ),
        Panel(
            "Read and fetched",
            "Bytes of files that containers read, and of layers that were fetched for it, by why.",
            [
                Query(f"sum(rate(p2pdist_lazy_read_bytes_total{RATE}) {DC})", "read"),
                Query(
                    f"sum by (why) (rate(p2pdist_lazy_fetched_bytes_total{RATE}) {DC})",
                    "fetched: {{why}}",
                ),
            ],
            unit="Bps",
            width=12,
        ),
        Panel(
            "Where layers are",
            "Of all that is shown: not here as a whole, at the mirror of its host, plain files.",
            [Query(f"sum by (where) (p2pdist_lazy_layer_bytes {DC})", "{{where}}")],
            unit="bytes",
            width=12,
        ),
    ],
    [DCS],
)
