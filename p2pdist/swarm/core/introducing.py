"""What a proxy answers to who asks it for other readers of a blob."""

from __future__ import annotations

from typing import Final

from p2pdist.exchange.frames import Others
from p2pdist.model.bucket import TokenBucket
from p2pdist.model.ids import Digest
from p2pdist.swarm.core.blob import BlobCore
from p2pdist.swarm.core.link_state import LinkState

QUESTIONS_PER_S: Final = 8.0
QUESTIONS_BURST: Final = 256
"""A host asks a few times for each layer of an image at first, and then ever more seldom. An answer
costs 34 µs, measured with 5,000 readers."""


def introduce(blob: BlobCore | None, link: LinkState, digest: Digest, now_s: float) -> Others:
    """Name some of those who read `digest` (`blob`: as it is in motion here) to the other end of
    `link`. Nobody, where it asks too often: an answer is fifty times as long as a question."""
    if link.questions is None:
        link.questions = TokenBucket(QUESTIONS_PER_S, QUESTIONS_BURST, now_s)
    if link.questions.take(1, now_s) > 0 or blob is None:
        return Others(digest, ())
    return Others(digest, blob.neighbours.audience.others(link))
