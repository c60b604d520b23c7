"""The last good answer to a question, for as long as the answer cannot be had anew."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

Key = TypeVar("Key")
Answer = TypeVar("Answer")

ANSWERS_MAX: Final = 4096


class LastGood(Generic[Key, Answer]):
    """Pure. Keeps each answer for `keep_s` after it was last given, the newest of them only."""

    def __init__(self, keep_s: float, *, answers_max: int = ANSWERS_MAX) -> None:
        self._keep_s = keep_s
        self._max = answers_max
        self._kept: OrderedDict[Key, tuple[Answer, float]] = OrderedDict()

    def answered(self, key: Key, answer: Answer, now_s: float) -> None:
        self._kept[key] = answer, now_s
        self._kept.move_to_end(key)
        if len(self._kept) > self._max:
            self._kept.popitem(last=False)

    def recall(self, key: Key, now_s: float) -> tuple[Answer, float] | None:
        """The last answer and its age; None: none was given lately enough."""
        answer, given_s = self._kept.get(key, (None, 0.0))
        if answer is None or now_s - given_s > self._keep_s:
            return None
        return answer, now_s - given_s
