"""What a fake registry can be told to do wrong, and what it notes of each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass
class Fault:
    """Strikes requests for one digest, tag or path; unset fields do no harm."""

    status: int | None = None
    """Answer with this status instead of the content (GET and HEAD)."""
    headers: dict[str, str] = field(default_factory=dict)
    """Added to the answer, such as `Retry-After`."""
    no_head: int | None = None
    """Answer HEAD with this status; GET works."""
    hang: bool = False
    """Send no status line until `FakeRegistry.release()`."""
    stall_after: int | None = None
    """Send so many bytes of the body, then nothing until `FakeRegistry.release()`."""
    truncate_after: int | None = None
    """Send so many bytes of the body, then close the connection."""
    corrupt_at: int | None = None
    """Flip the byte at this offset of the content."""
    digest_header: str | None = None
    """`Docker-Content-Digest`; empty: none at all."""
    content_type: str | None = None
    ignore_range: bool = False
    """Answer 200 with the whole to a Range."""
    refuse_range: bool = False
    """Answer 416 to any Range."""
    content_range: str | None = None
    """`Content-Range` of a 206, whatever was asked for; empty: none at all."""
    no_length: bool = False
    """Send the body in chunked coding, and HEAD without a length."""
    until_close: bool = False
    """Answer GET with the whole, whose end is that of the connection, and HEAD without a length."""
    head_length: int | None = None
    """`Content-Length` of the answer to HEAD."""
    no_total: bool = False
    """`Content-Range: bytes a-b/*`."""
    redirect: str | None = None
    """Answer 307 to this Location; `{digest}` stands for what was asked for."""
    bytes_per_s: float | None = None
    times: int | None = None
    """Strike so many requests only."""

    def spent(self) -> bool:
        """Count one strike; True when there was none left."""
        if self.times is None:
            return False
        self.times -= 1
        return self.times < 0


@dataclass
class TokenAuth:
    """Bearer tokens, as the Docker token specification has them."""

    username: str = ""
    password: str = ""
    """Without a user name tokens are given to anybody."""
    realm: str = ""
    """Where challenges point to; the registry's own `/token` by default."""
    expires_in: int | None = 300
    token_key: str = "token"
    methods: tuple[str, ...] = ("GET",)
    """What the token service accepts."""
    extra_challenges: tuple[str, ...] = ()
    """`WWW-Authenticate` values sent before the right one."""
    require_scope: bool = True
    service: str = "fake, registry"
    scope: str = ""
    """What challenges wish for; by default what is needed."""


@dataclass
class Asked:
    """One request that reached the registry."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    port: int
    status: int = 0
    """0 until the answer is through."""

    @property
    def authorization(self) -> str | None:
        return self.headers.get("Authorization")
