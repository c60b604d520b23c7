"""The last images that were pulled here, and from where their bytes came. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

KEPT: Final = 5
# An engine that unpacks a layer is silent for so long before it asks for the next one.
TOGETHER_S: Final = 60.0


@dataclass(slots=True)
class RecentPull:
    """Requests for one image that followed each other."""

    image: str
    last_s: float
    tag: str = ""
    """The one that its manifest was asked by; empty: none was."""
    requests: int = 0
    cut: int = 0
    """Bodies that ended short."""
    bytes_by_source: Counter[str] = field(default_factory=Counter)


class RecentPulls:
    """Hears of each request that sent something; names and sums only, of the last few pulls."""

    def __init__(self) -> None:
        self._pulls: list[RecentPull] = []
        self._asked: dict[str, tuple[str, float]] = {}
        """Image -> the tag that was looked up last, and when: nothing of it was pulled yet."""

    def asked(self, image: str, tag: str, now_s: float) -> None:
        """Somebody asked what `tag` stands for. Engines do, and pull by digest then; others only
        look whether it moved, which is no pull."""
        self._asked.pop(image, None)
        self._asked[image] = (tag, now_s)
        while len(self._asked) > KEPT:
            del self._asked[next(iter(self._asked))]

    def note(
        self,
        image: str,
        tag: str,
        bytes_by_source: Mapping[str, int],
        *,
        started_s: float,
        ended_s: float,
        cut: bool = False,
    ) -> None:
        """`tag`: what a manifest was asked by; empty for blobs and digests."""
        looked_up, at_s = self._asked.pop(image, ("", 0.0))
        if not tag and started_s <= at_s + TOGETHER_S:
            tag = looked_up
        pull = self._that_goes_on(image, tag, started_s)
        if pull is None:
            pull = RecentPull(image, ended_s)
        else:
            self._pulls.remove(pull)
        self._pulls = [*self._pulls, pull][-KEPT:]
        pull.last_s = ended_s
        pull.tag = pull.tag or tag
        pull.requests += 1
        pull.cut += cut
        pull.bytes_by_source.update(bytes_by_source)

    def _that_goes_on(self, image: str, tag: str, started_s: float) -> RecentPull | None:
        for pull in reversed(self._pulls):
            same_tag = not tag or pull.tag in ("", tag)
            if pull.image == image and same_tag and started_s <= pull.last_s + TOGETHER_S:
                return pull
        return None

    def status(self, now_s: float) -> list[dict[str, Any]]:
        """For `/api/v1/status`, the last one first."""
        return [
            {
                "image": pull.image,
                "tag": pull.tag,
                "ago_s": round(now_s - pull.last_s, 1),
                "requests": pull.requests,
                "cut": pull.cut,
                "bytes_by_source": dict(pull.bytes_by_source),
            }
            for pull in reversed(self._pulls)
        ]
