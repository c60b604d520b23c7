"""Metrics read from plain counters when they are scraped; the cores import no metrics library."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from p2pdist import __version__
from p2pdist.model.durations import DURATION_BOUNDS_S, bucket_of
from p2pdist.model.members import Place

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


class Histogram(Protocol):
    """For any thread."""

    def family(self) -> HistogramMetricFamily: ...


class Durations:
    """A histogram of seconds by some labels; plain counters, read when scraped."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], values: Iterable[Sequence[str]]
    ) -> None:
        """`values`: of the labels, whose series are there from the start; others, which are from
        bounded sets too, come with their first observation."""
        self._name, self._text, self._labels = name, text, list(labels)
        self._counts: dict[tuple[str, ...], list[int]] = {}
        self._sums: dict[tuple[str, ...], float] = {}
        for key in values:
            self._begin(tuple(key))

    def observe(self, values: Sequence[str], seconds: float) -> None:
        key = tuple(values)
        if key not in self._counts:
            self._begin(key)
        self._counts[key][bucket_of(seconds)] += 1
        self._sums[key] += seconds

    def _begin(self, key: tuple[str, ...]) -> None:
        assert len(key) == len(self._labels)
        self._sums[key] = 0.0
        self._counts[key] = [0] * (len(DURATION_BOUNDS_S) + 1)

    def family(self) -> HistogramMetricFamily:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for key, counts in list(self._counts.items()):  # a copy: this is not the event loop
            family.add_metric(list(key), buckets_of(counts), sum_value=self._sums[key])
        return family


def buckets_of(counts: Sequence[int]) -> list[tuple[str, float]]:
    """The cumulative buckets of counts by `bucket_of`."""
    bounds = [*map(str, DURATION_BOUNDS_S), "+Inf"]
    return list(zip(bounds, itertools.accumulate(counts), strict=True))


class SampleCollector(Collector):
    """Turns the samples of several sources into metric families, by name."""

    def __init__(self, sources: Iterable[Samples], durations: Iterable[Histogram] = ()) -> None:
        self._sources = list(sources)
        self._durations = list(durations)

    def collect(self) -> Iterator[Metric]:
        yield from (durations.family() for durations in self._durations)
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


def node_info(role: str, place: Place) -> Sample:
    """Where a daemon stands, to be joined to its other series by `instance`."""
    text = "Always 1; the role and place of this daemon."
    labels = {"role": role, "dc": place.dc, "rack": place.rack}
    return Sample("p2pdist_node_info", "gauge", text, labels, 1.0)


def registry_of(*sources: Samples, durations: Iterable[Histogram] = ()) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(SampleCollector([build_info, *sources], durations))
    ProcessCollector(registry=registry)
    return registry


def render(registry: CollectorRegistry) -> bytes:
    """The text exposition; blocking: milliseconds per 1,000 series, and per 10,000 open files."""
    return generate_latest(registry)
