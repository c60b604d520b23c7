"""Bytes that clients got, by registry and source."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.oci.routes import BlobRoute
from p2pdist.registry.ports import CACHE, PullContext
from p2pdist.registry.serving.delivered import (
    OTHER,
    REGISTRIES_MAX,
    SOURCES,
    DeliveredBytes,
    attributed,
)
from p2pdist.registry.serving.pull import Pull, PullRecord
from p2pdist.swarm import counters


def record(
    registry: str, sent: int, by_source: Mapping[str, int], *, by_node: bool = False
) -> PullRecord:
    context = PullContext("id-1", bytes_by_source=dict(by_source))
    route = BlobRoute("app", digest_of(b"x"))
    pull = Pull(route, ImageName(registry, "team/app"), context, {}, by_node=by_node)
    pull.sent_bytes = sent
    return pull.record(1.0)


def told(delivered: DeliveredBytes) -> dict[tuple[str, str], float]:
    """What is not zero, by registry and source."""
    return {
        (s.labels["upstream"], s.labels["source"]): s.value for s in delivered.samples() if s.value
    }


def test_the_sources_are_the_nodes_and_the_cache() -> None:
    assert (CACHE, *counters.SOURCES) == SOURCES


@pytest.mark.parametrize(
    ("sent", "by_source", "parts"),
    [
        (10, {}, {"cache": 10}),
        (10, {"proxy": 4}, {"proxy": 4, "cache": 6}),
        (10, {"proxy": 4, "cache": 1}, {"proxy": 4, "cache": 6}),
        (10, {"proxy": 6, "rack": 4}, {"proxy": 6, "rack": 4}),
        # The whole blob came in while a range of it was read.
        (10, {"proxy": 60, "rack": 40}, {"proxy": 6, "rack": 4}),
        (
            10,
            {"proxy": 1, "rack": 1, "dc": 1, "wan": 9},
            {"proxy": 0, "rack": 0, "dc": 0, "wan": 10},
        ),
        (0, {"proxy": 5}, {"proxy": 0}),
        (0, {}, {}),
    ],
)
def test_what_was_sent_is_split_without_rest(
    sent: int, by_source: dict[str, int], parts: dict[str, int]
) -> None:
    assert attributed(sent, by_source) == parts
    assert sum(attributed(sent, by_source).values()) == sent


def test_bytes_count_for_the_registry_they_were_asked_of() -> None:
    delivered = DeliveredBytes({"docker.io", "ghcr.io"})
    delivered.note(record("docker.io", 10, {"rack": 10}))
    delivered.note(record("docker.io", 5, {"rack": 2}))
    delivered.note(record("ghcr.io", 7, {}))

    assert told(delivered) == {
        ("docker.io", "rack"): 12,
        ("docker.io", "cache"): 3,
        ("ghcr.io", "cache"): 7,
    }


def test_what_goes_to_a_node_is_counted_there() -> None:
    delivered = DeliveredBytes({"docker.io"})
    delivered.note(record("docker.io", 10, {"upstream": 10}, by_node=True))

    assert told(delivered) == {}


def test_served_registries_are_there_from_the_start_and_new_ones_once_they_are() -> None:
    served = {"docker.io"}
    delivered = DeliveredBytes(served)
    served.add("ghcr.io")

    labels = [(s.labels["upstream"], s.labels["source"]) for s in delivered.samples()]
    assert labels == [(host, source) for host in ("docker.io", "ghcr.io") for source in SOURCES]


def test_a_client_that_names_ever_new_registries_makes_no_more_series() -> None:
    delivered = DeliveredBytes(())
    for number in range(REGISTRIES_MAX + 5):
        delivered.note(record(f"r{number}.example", 1, {}))

    assert len(list(delivered.samples())) == (REGISTRIES_MAX + 1) * len(SOURCES)
    assert told(delivered)[OTHER, "cache"] == 5
