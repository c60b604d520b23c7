"""Blobs that only some may read, at a proxy: for whom, by whose credentials, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from p2pdist.errors import ErrorReason, UpstreamError
from p2pdist.model.ids import Digest, HostId, digest_of
from p2pdist.model.private_digests import is_private, scope_of
from p2pdist.model.statements import Keyring, Signer, Ticket
from p2pdist.oci.callers import Caller
from p2pdist.oci.names import ImageName
from p2pdist.registry.ports import speaks_for
from p2pdist.registry_proxy import private_blobs
from p2pdist.registry_proxy.private_blobs import PrivateBlobs
from p2pdist.swarm.core.tickets import TICKET_S_MAX, OwnTickets
from p2pdist.swarm.fallback import OutsideBody
from tests.tracker.servers import wait_until

NAME = ImageName("registry.test", "alice/app")
LAYER, HOST = digest_of(b"layer"), HostId("a" * 32)
SIZE_BYTES = 1 << 20
ALICE, BOB = Caller("Basic alice"), Caller("Basic bob")
SIGNER = Signer.generate()


class Registry:
    """An outside source that lets `may` read, and notes who asked."""

    label = "upstream"

    def __init__(self) -> None:
        self.may = {ALICE, BOB}
        self.asked: list[tuple[Caller, Digest]] = []
        self.reason = ErrorReason.DENIED

    @asynccontextmanager
    async def open_blob(
        self, name: ImageName, digest: Digest, *, start: int = 0
    ) -> AsyncIterator[OutsideBody]:
        spoken = speaks_for.get()
        assert spoken is not None
        assert spoken[0] == name.upstream
        self.asked.append((spoken[1], digest))
        if spoken[1] not in self.may:
            raise UpstreamError("no", status=403, reason=self.reason)
        yield cast(OutsideBody, SimpleNamespace(size_bytes=SIZE_BYTES))


class Obtaining:
    """Notes which searches are started; none of them ends."""

    def __init__(self) -> None:
        self.started: dict[Digest, Any] = {}

    def runs(self, digest: Digest) -> bool:
        return digest in self.started

    def rests(self, digest: Digest) -> bool:
        return False

    def ask(self, active: Any) -> float:
        return 0.0

    def start(self, active: Any, origin: Any, *, paid: float) -> None:
        self.started[active.digest] = origin


class Parts:
    def __init__(self) -> None:
        self.registry, self.obtaining, self.unix_s = Registry(), Obtaining(), 10_000.0
        self.tickets = OwnTickets()
        node = SimpleNamespace(
            actives={},
            core=SimpleNamespace(tickets=self.tickets),
            activate=lambda digest, size: SimpleNamespace(digest=digest, complete=False),
        )
        self.blobs = PrivateBlobs(
            cast(Any, node),
            SIGNER,
            cast(Any, self.obtaining),
            self.registry,
            own_id=lambda: HostId("f" * 32),
            proved=lambda: True,
            unix_s=lambda: self.unix_s,
        )

    async def read(self, private: Digest) -> list[Caller]:
        """Read a blob that is being obtained; whose credentials the registry was shown."""
        self.registry.asked.clear()
        origin = self.obtaining.started[private]
        async with origin.source.open_blob(NAME, private) as body:
            assert body.size_bytes == SIZE_BYTES
        assert {digest for _, digest in self.registry.asked} == {LAYER}
        return [caller for caller, _ in self.registry.asked]


@pytest.fixture
async def parts() -> AsyncIterator[Parts]:
    made = Parts()
    yield made
    made.blobs.close()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_blobs, "KNOWN_S", 0.1)


async def test_a_ticket_is_for_one_host_and_repository_and_ends_in_minutes(parts: Parts) -> None:
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    assert is_private(private)
    keyring = Keyring([SIGNER.public_key_bytes])

    said = keyring.open(parts.blobs.ticket(private, HOST))
    assert said == Ticket(scope_of(private), HOST, int(10_000 + TICKET_S_MAX))


async def test_one_ticket_does_for_half_of_its_life(parts: Parts) -> None:
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    first = parts.blobs.ticket(private, HOST)
    parts.unix_s += TICKET_S_MAX / 2 - 1
    assert parts.blobs.ticket(private, HOST) == first
    parts.unix_s += 2
    assert parts.blobs.ticket(private, HOST) != first
    assert parts.blobs.tickets_signed == 2
    parts.unix_s -= 3600  # a clock that was set back must not make it good for longer
    assert Keyring([SIGNER.public_key_bytes]).open(parts.blobs.ticket(private, HOST)) == Ticket(
        scope_of(private), HOST, int(parts.unix_s + TICKET_S_MAX)
    )


async def test_it_is_read_by_who_was_let_last_and_by_others_where_that_one_is_not_any_more(
    parts: Parts,
) -> None:
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    assert parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, BOB) == private
    parts.blobs.obtain(private)
    assert await parts.read(private) == [BOB]

    parts.registry.may = {ALICE}
    assert await parts.read(private) == [BOB, ALICE]
    assert await parts.read(private) == [ALICE]

    parts.registry.may = set()
    with pytest.raises(UpstreamError):
        await parts.read(private)
    parts.registry.may = {ALICE}
    assert await parts.read(private) == [ALICE], "the last one is asked for again"


async def test_a_registry_that_is_down_says_nothing_of_who_may(parts: Parts) -> None:
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, BOB)
    parts.blobs.obtain(private)
    parts.registry.may, parts.registry.reason = set(), ErrorReason.REGISTRY_DOWN
    with pytest.raises(UpstreamError):
        await parts.read(private)
    parts.registry.may = {ALICE, BOB}
    assert await parts.read(private) == [BOB]


async def test_what_was_never_introduced_is_not_obtained(parts: Parts) -> None:
    parts.blobs.wanted(Digest("private:" + "0" * 64))
    assert parts.obtaining.started == {}
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    for _ in range(2):
        parts.blobs.wanted(private)
    assert list(parts.obtaining.started) == [private]
    assert parts.tickets.to_show(private, asyncio.get_running_loop().time()) is not None


async def test_a_size_that_is_refuted_is_told_and_forgotten(parts: Parts) -> None:
    heard: list[tuple[object, ...]] = []
    parts.blobs.refuted = lambda *said: heard.append(said)
    private = parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    parts.blobs.obtain(private)
    parts.obtaining.started[private].refuted(NAME, 7)
    assert heard == [(NAME, LAYER, SIZE_BYTES, 7)]
    del parts.obtaining.started[private]
    parts.blobs.wanted(private)
    assert parts.obtaining.started == {}


@pytest.mark.usefixtures("short")
async def test_credentials_are_forgotten_when_nobody_asks_any_more() -> None:
    parts = Parts()
    parts.blobs.introduce(NAME, LAYER, SIZE_BYTES, ALICE)
    # Looked at without its own clock, which would hide what is still in memory.
    kept: dict[Digest, object] = cast(Any, parts.blobs._known)._Cache__data
    assert len(kept) == 1
    await wait_until(lambda: not kept)
    await wait_until(lambda: parts.blobs._sweep is None)
