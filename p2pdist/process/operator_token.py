"""The token of the job API: whoever has the cluster secret may order hosts about.

It is derived, so that no second secret has to be kept, and proves nothing to nodes: a token that
leaks from a script opens no exchange.
"""

from __future__ import annotations

import hashlib
import hmac

_PURPOSE = b"p2pdist operator token 1"


def operator_token(secret: bytes) -> str:
    """Return the bearer token (64 hex characters) of the cluster with this secret."""
    return hmac.new(secret, _PURPOSE, hashlib.sha256).hexdigest()


def token_matches(secret: bytes, authorization: str) -> bool:
    """Check an `Authorization` header in constant time."""
    scheme, _, token = authorization.partition(" ")
    expected = operator_token(secret)
    return scheme.lower() == "bearer" and hmac.compare_digest(
        token.strip().encode(), expected.encode()
    )
