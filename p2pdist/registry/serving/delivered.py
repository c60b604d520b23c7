"""How much of which registry went to clients over `/v2/`, and where it came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Final

from p2pdist.process.metrics import Sample
from p2pdist.registry.ports import CACHE
from p2pdist.registry.serving.pull import PullRecord

SOURCES: Final = (CACHE, "rack", "dc", "proxy", "wan", "upstream")
OTHER: Final = "other"
REGISTRIES_MAX: Final = 32
"""With series of their own; what more there are is `OTHER`."""


def attributed(sent_bytes: int, by_source: Mapping[str, int]) -> dict[str, int]:
    """Split `sent_bytes` by where they came from; what no source brought lay here.

    A blob brings its sources' bytes in while it is read by others too, and perhaps only in part:
    where more came than was sent, each source has its share of what was.
    """
    total = sum(by_source.values())
    if total <= sent_bytes:
        rest = sent_bytes - total
        return {**by_source, CACHE: by_source.get(CACHE, 0) + rest} if rest else dict(by_source)
    parts = {source: sent_bytes * nbytes // total for source, nbytes in by_source.items()}
    most = max(parts, key=lambda source: parts[source])
    parts[most] += sent_bytes - sum(parts.values())
    return parts


class DeliveredBytes:
    """Hears of each request that is over. What goes to nodes of ours is no delivery: those deliver
    it to clients, and count it."""

    def __init__(self, registries: Collection[str]) -> None:
        """`registries`: those that are served, whose series are there from the start; the list may
        change."""
        self._registries = registries
        self._labels: dict[str, None] = {}
        self._bytes: Counter[tuple[str, str]] = Counter()

    def note(self, record: PullRecord) -> None:
        if record.by_node or not record.sent_bytes:
            return
        label = self._label(record.name.upstream)
        for source, nbytes in attributed(record.sent_bytes, record.bytes_by_source).items():
            self._bytes[label, source] += nbytes

    def _label(self, registry: str) -> str:
        if registry not in self._labels:
            if len(self._labels) >= REGISTRIES_MAX:
                return OTHER
            self._labels[registry] = None
        return registry

    def samples(self) -> Iterator[Sample]:
        shown = list(self._labels)
        fresh = [registry for registry in sorted(self._registries) if registry not in self._labels]
        shown += fresh[: REGISTRIES_MAX - len(shown)]
        if len(shown) == REGISTRIES_MAX:
            shown.append(OTHER)
        for registry in shown:
            for source in SOURCES:
                yield Sample(
                    "p2pdist_delivered_bytes_total", "counter",
                    "Bytes of blobs and manifests that clients got, by registry and source.",
                    {"upstream": registry, "source": source}, self._bytes[registry, source],
                )  # fmt: skip
