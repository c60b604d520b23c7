"""When an operator's certificate is renewed, and where a tracker does that."""

from __future__ import annotations

from typing import Final

PATH: Final = "/api/v1/certificate"
"""At its admin port. POST: a request in DER (PKCS #10); the answer is `control.Renewed` in JSON."""
DUE_SHARE: Final = 2 / 3
"""Of its life: by then daemons have theirs renewed, too."""
WARN_S: Final = 7 * 86400.0
"""What is left of one that should have been renewed when its owner is told."""


def due(begins_s: float, ends_s: float, now_s: float) -> bool:
    """Moments are Unix seconds."""
    return begins_s + (ends_s - begins_s) * DUE_SHARE <= now_s < ends_s
