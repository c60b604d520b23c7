"""Links that only remember what was sent to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from p2pdist.exchange.codec import Decoder
from p2pdist.exchange.frames import Frame
from p2pdist.exchange.link import Link
from p2pdist.model.ids import HostId, RequestId
from p2pdist.model.members import Address, Member, Place, Role

PLACE = Place("dc1", "")


@dataclass
class FakeSession:
    member: Member
    features: int = 0


@dataclass(eq=False)
class FakeLink:
    session: FakeSession
    closed: bool = False
    close_reason: str = ""
    payload_received: int = 0
    sent: list[Frame] = field(default_factory=list)
    runs: list[RequestId] = field(default_factory=list)
    """Requests that were answered with bytes."""
    unsent_small_bytes: int = 0
    sealed: bool = False
    network: str = "127.0.0.1"
    smalls: list[bytes] = field(default_factory=list)

    def send(self, frame: Frame) -> None:
        self.sent.append(frame)

    def send_encoded(self, data: bytes) -> None:
        self.sent += Decoder().feed(data)

    def send_run(
        self,
        request_id: RequestId,
        source: int | bytes,
        spans: Sequence[tuple[int, int, int]],
        done: Callable[[int], None],
        *,
        bulk: bool,
    ) -> None:
        self.runs.append(request_id)
        done(sum(length for _, _, length in spans))

    def send_small(
        self, request_id: RequestId, media_type: str, body: bytes, done: Callable[[], None]
    ) -> None:
        self.smalls.append(body)
        done()

    def expect_chunks(self, request_id: RequestId, chunks: Sequence[tuple[int, int]]) -> None: ...

    def forget(self, request_id: RequestId) -> None: ...

    def close(self, reason: str) -> None:
        self.closed, self.close_reason = True, reason

    def take(self) -> list[Frame]:
        sent, self.sent = self.sent, []
        return sent

    def said(self, kind: type[Frame]) -> list[Frame]:
        return [frame for frame in self.sent if isinstance(frame, kind)]


def link(letter: str, role: Role = Role.PEER, place: Place = PLACE) -> FakeLink:
    member = Member(HostId(letter * 32), role, place, (Address("10.0.0.1", 1),))
    return FakeLink(FakeSession(member))


def real(fake: FakeLink) -> Link:
    return cast(Link, fake)
