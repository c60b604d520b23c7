"""How many questions and bytes of registries one caller may have: no host takes what all share."""

from __future__ import annotations

from typing import Final, Literal

from cachetools import LRUCache

from p2pdist.model.bucket import TokenBucket

# Full: who asked longest ago is forgotten, which gives it no more than a caller that is new.
CALLERS_MAX: Final = 4096
# At the default rate 200 GB: an image of a large model, of which one host is the first to ask for
# every layer, fits in.
BYTES_S: Final = 400.0

What = Literal["questions", "bytes"]
KINDS: Final[tuple[What, ...]] = ("questions", "bytes")


class Spending:
    """Two token buckets for each caller. Pure: time enters as `now_s` (monotonic seconds).

    Bytes may be owed: whoever has any left may begin a blob of any size, and waits afterwards.
    """

    def __init__(
        self,
        *,
        questions_per_min: float,
        bytes_per_s: float,
        callers_max: int = CALLERS_MAX,
    ) -> None:
        """A rate of 0 is no limit. At once: the questions of a minute, the bytes of `BYTES_S`."""
        self._rates: dict[What, tuple[float, float]] = {
            "questions": (questions_per_min / 60, questions_per_min),
            "bytes": (bytes_per_s, bytes_per_s * BYTES_S),
        }
        self._buckets: LRUCache[tuple[What, str], TokenBucket] = LRUCache(2 * callers_max)
        self.refused: dict[What, int] = dict.fromkeys(KINDS, 0)

    def __len__(self) -> int:
        return len(self._buckets)

    def ask(self, caller: str, now_s: float) -> float:
        """Take one question and return 0, or return the seconds until there is one."""
        return self._take("questions", caller, 1, now_s)

    def begin(self, caller: str, nbytes: float, now_s: float) -> float:
        """Take `nbytes` if any are left and return 0, or return the seconds until there are.

        `nbytes` 0: only look.
        """
        return self._take("bytes", caller, nbytes, now_s)

    def came(self, caller: str, nbytes: float, now_s: float) -> None:
        """So many bytes came that were not taken before, and are owed; below 0: so many were taken
        and did not come."""
        if (bucket := self._bucket("bytes", caller, now_s)) is None:
            return
        if nbytes < 0:
            bucket.give_back(-nbytes, now_s)
        else:
            bucket.owe(nbytes, now_s)

    def _take(self, what: What, caller: str, amount: float, now_s: float) -> float:
        bucket = self._bucket(what, caller, now_s)
        wait_s = 0.0 if bucket is None else bucket.take(amount, now_s)
        self.refused[what] += wait_s > 0
        return wait_s

    def _bucket(self, what: What, caller: str, now_s: float) -> TokenBucket | None:
        rate, burst = self._rates[what]
        if not rate:
            return None
        bucket = self._buckets.get((what, caller))
        if bucket is None:
            bucket = self._buckets[what, caller] = TokenBucket(rate, burst, now_s)
        return bucket
