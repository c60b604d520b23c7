"""Prewarm jobs."""

from __future__ import annotations

from typing import Final

from panels.parts import DC, DCS, RATE, Board, Panel, Query, Variable

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
