"""What registries were asked, and what came, as metrics; upstreams are the configured ones.

Read in a thread: what the event loop adds to meanwhile is copied first.
"""

from __future__ import annotations

from collections.abc import Iterator

from p2pdist.process.metrics import Sample
from p2pdist.registry.reading.requests import UpstreamCounters


def payload_samples(counters: UpstreamCounters) -> Iterator[Sample]:
    for host, nbytes in list(counters.payload_bytes.items()):
        yield Sample(
            "p2pdist_upstream_payload_bytes_total", "counter", "Bytes of blobs and manifests.",
            {"upstream": host}, nbytes,
        )  # fmt: skip


def asking_samples(counters: UpstreamCounters) -> Iterator[Sample]:
    for (host, code), number in list(counters.requests.items()):
        yield Sample(
            "p2pdist_upstream_requests_total", "counter", "Requests by upstream and answer.",
            {"upstream": host, "code": code}, number,
        )  # fmt: skip
    for (host, reason), number in list(counters.failures.items()):
        yield Sample(
            "p2pdist_upstream_failures_total", "counter", "Requests in vain by upstream and why.",
            {"upstream": host, "reason": reason}, number,
        )  # fmt: skip
    for host, left in list(counters.rate_limit_remaining.items()):
        yield Sample(
            "p2pdist_upstream_ratelimit_remaining", "gauge", "Pulls that upstream still grants.",
            {"upstream": host}, left,
        )  # fmt: skip
