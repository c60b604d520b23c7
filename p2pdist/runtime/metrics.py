"""Metrics read from plain counters when they are scraped; the cores import no metrics library."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from p2pdist import __version__

Samples = Callable[[], Iterable["Sample"]]

# Rendering costs 13 ms per 1,000 series, so a daemon stays under 300 (operations, section 6).
SERIES_MAX: Final = 300


@dataclass(frozen=True, slots=True)
class Sample:
    """One value. Label values come from bounded sets: never a digest, an image or a peer."""

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: Mapping[str, str]
    value: float


class SampleCollector(Collector):
    """Turns the samples of several sources into metric families, by name."""

    def __init__(self, sources: Iterable[Samples]) -> None:
        self._sources = list(sources)

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for sample in (s for source in self._sources for s in source()):
            family = families.get(sample.name)
            if family is None:
                make = CounterMetricFamily if sample.kind == "counter" else GaugeMetricFamily
                family = make(sample.name, sample.help, labels=list(sample.labels))
                families[sample.name] = family
            family.add_metric(list(sample.labels.values()), sample.value)
        yield from families.values()


def build_info() -> Iterable[Sample]:
    labels = {"version": __version__, "python": platform.python_version()}
    yield Sample("p2pdist_build_info", "gauge", "Always 1; what runs here.", labels, 1.0)


def registry_of(*sources: Samples) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SampleCollector([build_info, *sources]))
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text exposition; blocking, milliseconds per 1,000 series."""
    return generate_latest(registry)
