"""What a host believes of a tag: fake proxies and peers that say what they are told to."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from p2pdist.errors import ErrorReason, PeerFault, RegistryError, UpstreamError
from p2pdist.exchange.frames import GetSmall, GetStatement
from p2pdist.model.control import Handout
from p2pdist.model.ids import Digest, HostId, RequestId, digest_of, tag_key
from p2pdist.model.members import Member, Place, Role
from p2pdist.model.statements import Keyring, Signer, TagStatement, key_id
from p2pdist.oci.manifest import OCI_MANIFEST, parse_manifest
from p2pdist.oci.names import ImageName
from p2pdist.peer.manifests import ManifestBook
from p2pdist.process.health import TRACKER, Health
from p2pdist.process.tasks import TaskOwner
from p2pdist.registry.ports import Manifest, PullContext
from p2pdist.registry.reading.client import UpstreamRefusal
from p2pdist.swarm.answering import Answering
from p2pdist.swarm.counters import NodeCounters
from p2pdist.swarm.finding import SmallFinder
from p2pdist.swarm.smalls import SmallAnswer
from tests.fakes.registry_images import build_image
from tests.faults.records import recorded
from tests.registry_proxy.proxy_parts import MemoryStore, Small
from tests.swarm.core.hosts import host

pytestmark = pytest.mark.faults

NAME = ImageName("docker.io", "library/app")
KEY = tag_key("docker.io", "library/app", "1")
OLD, NEW = (build_image([layer]).manifest for layer in (b"yesterday", b"today"))
DAY_S = 24 * 3600
TTL_S = 30.0
SIGNER = Signer.generate()
PLACE = Place("dc1")


@dataclass
class Clocks:
    unix_s: float = 1_700_000_000.0
    monotonic_s: float = 0.0

    def pass_s(self, seconds: float) -> None:
        self.unix_s += seconds
        self.monotonic_s += seconds


def stated(body: bytes, issued_s: float, *, signer: Signer = SIGNER, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "key": KEY,
        "digest": digest_of(body),
        "media_type": OCI_MANIFEST,
        "size_bytes": len(body),
        "issued_at_s": int(issued_s),
        "expires_at_s": int(issued_s) + DAY_S,
        **changes,
    }
    return signer.sign(TagStatement(**fields))


class ToldProxy:
    """Whoever answers in the place of a proxy; silent until it is told something."""

    base_url = "http://proxy.test"

    def __init__(self) -> None:
        self.answer: Manifest | None = None
        self.refusal: UpstreamError | None = None
        self.asked = 0

    def says(self, body: bytes, record: bytes | None, media_type: str = OCI_MANIFEST) -> None:
        self.answer = Manifest(digest_of(body), media_type, body, record)

    async def manifest(self, name: ImageName, reference: str, *, timeout_s: float) -> Manifest:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        if self.answer is None:
            raise UpstreamError("silent")
        return self.answer


class ToldPeer:
    """A member of the swarm that answers with what it was given, at once."""

    def __init__(self, name: str, record: bytes | None, small: SmallAnswer | None = None) -> None:
        self.host_id, self.closed = name, False
        self.session = SimpleNamespace(member=Member(HostId(name), Role.PEER, PLACE))
        self.questions: Any = None
        self.asked = 0
        self._record, self._small = record, small

    def expect_small(self, request_id: RequestId) -> None: ...

    def forget(self, request_id: RequestId) -> None: ...

    def send(self, frame: object) -> None:
        self.asked += 1
        loop = asyncio.get_running_loop()
        match frame:
            case GetStatement(request_id):
                loop.call_soon(self.questions.answered, self, request_id, self._record)
            case GetSmall(request_id):
                loop.call_soon(self.questions.answered, self, request_id, self._small)


@dataclass
class Bench:
    """One host's book of manifests between a proxy and some peers."""

    clocks: Clocks
    proxy: ToldProxy = field(default_factory=ToldProxy)
    peers: list[ToldPeer] = field(default_factory=list)
    store: MemoryStore = field(default_factory=MemoryStore)
    punished: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.counters = NodeCounters()
        self.keyring = Keyring([SIGNER.public_key_bytes])
        self.place = PLACE
        self.health = Health(unix_s=lambda: self.clocks.unix_s)
        self.core = host()
        self.tracker = SimpleNamespace(note=lambda *_: None, join=self._named)
        self.neighbourhood = SimpleNamespace(reach=self._reached)
        self.strange_keys: list[str] = []
        fakes: dict[str, Any] = {self.proxy.base_url: self.proxy}
        self.proxy_links = SimpleNamespace(
            answering=Answering(fakes, TaskOwner("test")),
            ask_each=self._no_links,
            signed_by_stranger=lambda url, key: self.strange_keys.append(key),
        )
        node: Any = self
        self.smalls = SmallFinder(node)
        proxies: Any = [self.proxy]
        self.book = ManifestBook(node, proxies, None, tag_ttl_s=TTL_S)

    async def ask(self, reference: str = "1") -> Manifest:
        return await self.book.manifest(NAME, reference, PullContext("test"))

    def knows(self, *records: bytes | None) -> None:
        """The swarm has so many members, each with its word on the tag."""
        self.peers = [ToldPeer(f"peer{i}", record) for i, record in enumerate(records)]
        for peer in self.peers:
            peer.questions = self.smalls.questions

    def punish(self, link: ToldPeer, fault: PeerFault) -> None:
        self.punished.append(link.host_id)

    def _named(self, key: object, *, member: bool) -> None:
        named = Handout(1, key, list(self.peers))  # type: ignore[arg-type]  # fakes
        asyncio.get_running_loop().call_soon(self.smalls.named, named)

    async def _reached(self, member: ToldPeer) -> ToldPeer:
        return member

    async def _no_links(self, digest: Digest, ask: object) -> None:
        """There are none."""


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr(ManifestBook, "_now_s", staticmethod(lambda: clocks.monotonic_s))
    return clocks


@pytest.fixture
async def bench(clocks: Clocks) -> Bench:
    return Bench(clocks)


# --- freshness is a matter of our own clock ---------------------------------------------------


@pytest.mark.parametrize("behind_s", [0, 120, 3600, DAY_S, 400 * DAY_S])
async def test_a_moved_tag_is_seen_whatever_our_clock_says(bench: Bench, behind_s: int) -> None:
    """A host a day behind used to serve yesterday's image for a day."""
    with recorded(33, "clocks apart", f"host {behind_s:,} s behind, tag") as record:
        there_s = bench.clocks.unix_s + behind_s  # the proxy's clock
        bench.proxy.says(OLD, stated(OLD, there_s))
        assert (await bench.ask()).body == OLD
        bench.clocks.pass_s(TTL_S - 1)
        assert (await bench.ask()).body == OLD
        assert bench.proxy.asked == 1

        bench.clocks.pass_s(1)
        bench.proxy.says(NEW, stated(NEW, there_s + TTL_S))

        assert (await bench.ask()).body == NEW
        record.outcome = "the moved tag is seen after its TTL"


@pytest.mark.parametrize("ahead_s", [3600, 2 * DAY_S, 400 * DAY_S])
async def test_a_clock_ahead_of_all_others_ends_nothing(bench: Bench, ahead_s: int) -> None:
    """Else all that proxies say would have ended long ago."""
    there_s = bench.clocks.unix_s - ahead_s
    now_s = time.monotonic()
    bench.health.heard_clock(
        TRACKER, "t", round(there_s * 1000), asked_s=now_s - 0.01, answered_s=now_s
    )
    bench.proxy.says(OLD, stated(OLD, there_s))

    assert (await bench.ask()).body == OLD
    assert (await bench.ask()).body == OLD
    assert bench.proxy.asked == 1  # it is fresh, too


async def test_what_a_proxy_saw_a_while_ago_is_asked_for_the_sooner(bench: Bench) -> None:
    bench.proxy.says(OLD, stated(OLD, bench.clocks.unix_s - 20))
    await bench.ask()
    bench.clocks.pass_s(10)
    await bench.ask()

    assert bench.proxy.asked == 2


async def test_after_a_restart_the_stamp_has_to_do(bench: Bench, clocks: Clocks) -> None:
    bench.proxy.says(OLD, stated(OLD, clocks.unix_s))
    await bench.ask()
    again = Bench(clocks, bench.proxy, store=bench.store)
    clocks.pass_s(TTL_S - 1)
    await again.ask()
    assert bench.proxy.asked == 1

    clocks.pass_s(1)
    await again.ask()
    assert bench.proxy.asked == 2


async def test_a_known_tag_outlives_its_proxies_for_a_day(bench: Bench) -> None:
    bench.proxy.says(OLD, stated(OLD, bench.clocks.unix_s))
    await bench.ask()
    bench.proxy.answer = None
    bench.clocks.pass_s(DAY_S - 60)

    found = await bench.ask()
    assert found.body == OLD
    assert found.stale is not None

    bench.clocks.pass_s(3600)
    with pytest.raises(RegistryError):
        await bench.ask()


# --- nothing old, from nobody -----------------------------------------------------------------


@pytest.mark.parametrize("age_s", [60, 3600, DAY_S + 3600, 90 * DAY_S])
async def test_who_answers_for_a_proxy_cannot_roll_a_tag_back(bench: Bench, age_s: int) -> None:
    """`/v2/` between peer and proxy is plain HTTP."""
    with recorded(51, "tag statement replayed", f"for a proxy, {age_s:,} s old") as record:
        now_s = bench.clocks.unix_s
        bench.proxy.says(NEW, stated(NEW, now_s))
        await bench.ask()
        bench.clocks.pass_s(TTL_S)
        bench.proxy.says(OLD, stated(OLD, now_s - age_s))

        found = await bench.ask()

        assert found.body == NEW
        assert found.stale is not None
        assert bench.store.statements[KEY] == stated_bytes(found)
        record.outcome = "the newer one is served, as stale"


def stated_bytes(found: Manifest) -> bytes:
    assert found.statement is not None
    return found.statement


@pytest.mark.parametrize(
    "record",
    [
        None,
        stated(OLD, Clocks().unix_s - 90 * DAY_S),
        stated(OLD, Clocks().unix_s, key=tag_key("docker.io", "library/app", "2")),
        stated(OLD, Clocks().unix_s, digest=digest_of(NEW)),
        stated(OLD, Clocks().unix_s, signer=Signer.generate()),
    ],
    ids=["no statement", "90 days old", "another tag", "another manifest", "a stranger"],
)
async def test_a_tag_without_a_statement_that_holds_is_not_served(
    bench: Bench, record: bytes | None
) -> None:
    bench.proxy.says(OLD, record)

    with pytest.raises(RegistryError):
        await bench.ask()
    assert bench.store.statements == {}


async def test_a_proxy_with_a_key_that_we_were_not_told_of_is_named(bench: Bench) -> None:
    """Else no tag is found here, and nobody knows why."""
    stranger = Signer.generate()
    bench.proxy.says(OLD, stated(OLD, bench.clocks.unix_s, signer=stranger))

    with pytest.raises(RegistryError):
        await bench.ask()
    assert bench.strange_keys == [key_id(stranger.public_key_bytes).hex()]


async def test_the_newest_word_of_the_swarm_counts(bench: Bench) -> None:
    """The first answer used to: five of five hosts were rolled back by 20 hours."""
    now_s = bench.clocks.unix_s
    for body in (OLD, NEW):
        bench.store.smalls[digest_of(body)] = Small("", body)
    bench.knows(stated(OLD, now_s - 20 * 3600), stated(NEW, now_s - 60), stated(OLD, now_s - 7200))

    assert (await bench.ask()).body == NEW


async def test_the_swarm_cannot_roll_back_what_is_known(bench: Bench) -> None:
    """Even where the manifest that is known is gone from the disk."""
    now_s = bench.clocks.unix_s
    bench.store.statements[KEY] = stated(NEW, now_s - 60)
    bench.store.smalls[digest_of(OLD)] = Small("", OLD)
    bench.knows(stated(OLD, now_s - 61))

    with pytest.raises(RegistryError):
        await bench.ask()
    assert bench.punished == []  # it may not have heard


async def test_one_who_knows_is_enough(bench: Bench) -> None:
    """Among many who know nothing, or answer what they recorded a while ago."""
    with recorded(51, "tag statement replayed", "by all of the swarm but one") as record:
        now_s = bench.clocks.unix_s
        for body in (OLD, NEW):
            bench.store.smalls[digest_of(body)] = Small("", body)
        replayed = [stated(OLD, now_s - 20 * 3600)] * 8
        bench.knows(None, stated(OLD, now_s - 30 * DAY_S), *replayed, stated(NEW, now_s - 3600))

        assert (await bench.ask()).body == NEW
        record.outcome = f"the newest of {len(bench.peers)} answers is served"


async def test_who_does_not_answer_holds_nobody_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("p2pdist.swarm.finding.TAG_ANSWERS_S", 0.05)
    bench.store.smalls[digest_of(NEW)] = Small("", NEW)
    bench.knows(stated(NEW, bench.clocks.unix_s), None)
    monkeypatch.setattr(bench.peers[1], "send", lambda frame: None)

    assert (await bench.ask()).body == NEW


async def test_a_strangers_word_is_punished(bench: Bench) -> None:
    bench.knows(stated(OLD, bench.clocks.unix_s, signer=Signer.generate()))

    with pytest.raises(RegistryError):
        await bench.ask()
    assert bench.punished == ["peer0"]


# --- media types ------------------------------------------------------------------------------


async def test_no_sender_says_of_which_type_a_manifest_is(bench: Bench) -> None:
    """`text/html` used to stick, and runtimes refuse an unknown type."""
    with recorded(52, "media type that is not the body's", "from a proxy") as record:
        bench.proxy.says(OLD, None, "text/html")
        digest = digest_of(OLD)

        first, second = await bench.ask(digest), await bench.ask(digest)

        assert (first.media_type, second.media_type) == (OCI_MANIFEST, OCI_MANIFEST)
        assert bench.store.smalls[digest].media_type == OCI_MANIFEST
        record.outcome = f"served and kept as {second.media_type}"


async def test_a_peers_word_on_a_type_is_not_kept(bench: Bench) -> None:
    with recorded(52, "media type that is not the body's", "from a peer") as record:
        told = ToldPeer("evil", None, SmallAnswer("text/html", OLD))
        told.questions = bench.smalls.questions
        bench.peers = [told]
        digest = digest_of(OLD)
        bench.book.learn_size(NAME, digest, len(OLD))

        first, second = await bench.ask(digest), await bench.ask(digest)

        assert (first.media_type, second.media_type) == (OCI_MANIFEST, OCI_MANIFEST)
        assert bench.store.smalls[digest].media_type == ""
        record.outcome = f"served as {second.media_type}, not kept"


async def test_a_type_that_was_kept_before_is_not_believed(bench: Bench) -> None:
    digest = digest_of(OLD)
    bench.store.smalls[digest] = Small("text/html", OLD)
    bench.book.learn_size(NAME, digest, len(OLD))

    assert (await bench.ask(digest)).media_type == OCI_MANIFEST


async def test_what_lies_here_or_in_the_swarm_is_served_where_it_was_named_only(
    bench: Bench,
) -> None:
    digest = digest_of(OLD)
    told = ToldPeer("peer", None, SmallAnswer(OCI_MANIFEST, OLD))
    told.questions = bench.smalls.questions
    bench.peers = [told]
    for stored in ({}, {digest: Small(OCI_MANIFEST, OLD)}):
        bench.store.smalls.update(stored)
        with pytest.raises(RegistryError):
            await bench.ask(digest)

    bench.book.learn_size(NAME, digest, len(OLD))
    assert (await bench.ask(digest)).body == OLD


async def test_a_tag_has_the_type_that_its_proxy_signed(bench: Bench) -> None:
    with recorded(52, "media type that is not the body's", "beside a signed one") as row:
        record = stated(OLD, bench.clocks.unix_s)
        bench.proxy.says(OLD, record, "text/html")

        assert (await bench.ask()).media_type == OCI_MANIFEST
        row.outcome = "served as signed"


UNKNOWN = b'{"items":[]}'
BUNDLE = "application/vnd.example.bundle.v1+json"


async def test_a_type_that_only_a_proxy_can_tell_is_kept(bench: Bench) -> None:
    bench.proxy.says(UNKNOWN, None, BUNDLE)
    digest = digest_of(UNKNOWN)
    assert (await bench.ask(digest)).media_type == BUNDLE
    bench.proxy.answer = None

    assert (await bench.ask(digest)).media_type == BUNDLE
    assert bench.proxy.asked == 1


async def test_a_signed_type_is_kept_for_who_asks_by_digest(bench: Bench) -> None:
    record = stated(UNKNOWN, bench.clocks.unix_s, media_type=BUNDLE)
    told = ToldPeer("peer", record, SmallAnswer("text/html", UNKNOWN))
    told.questions = bench.smalls.questions
    bench.peers = [told]

    assert (await bench.ask()).media_type == BUNDLE
    assert (await bench.ask(digest_of(UNKNOWN))).media_type == BUNDLE


async def test_the_swarm_alone_gives_what_names_its_type(bench: Bench) -> None:
    named = b'{"mediaType":"%s"}' % BUNDLE.encode()
    told = ToldPeer("evil", None, SmallAnswer(OCI_MANIFEST, named))
    told.questions = bench.smalls.questions
    bench.peers = [told]
    bench.book.learn_size(NAME, digest_of(named), len(named))

    assert (await bench.ask(digest_of(named))).media_type == BUNDLE


@pytest.mark.parametrize("body", [b"a layer", b'{"mediaType":"%s"}' % BUNDLE.encode()])
async def test_a_blob_that_lies_here_is_no_manifest(bench: Bench, body: bytes) -> None:
    """Its proxy decides what there is at this endpoint."""
    digest = digest_of(body)
    bench.store.smalls[digest] = Small("", body)
    bench.proxy.refusal = UpstreamRefusal(
        "no such manifest", status=404, code="MANIFEST_UNKNOWN", reason=ErrorReason.UNKNOWN
    )

    with pytest.raises(RegistryError) as caught:
        await bench.ask(digest)

    assert (caught.value.status, bench.proxy.asked) == (404, 1)


# --- what is missing below a tag --------------------------------------------------------------


async def test_a_blob_that_is_gone_ends_the_freshness_of_its_tags(bench: Bench) -> None:
    bench.proxy.says(OLD, stated(OLD, bench.clocks.unix_s))
    layer = parse_manifest((await bench.ask()).body).layers[0].digest
    bench.clocks.pass_s(2)
    bench.proxy.says(NEW, stated(NEW, bench.clocks.unix_s))

    bench.book.missing(NAME, digest_of(b"never named"))
    assert (await bench.ask()).body == OLD
    bench.book.missing(NAME, layer)

    assert (await bench.ask()).body == NEW


async def test_a_blob_that_stays_away_costs_one_look_up_a_second(bench: Bench) -> None:
    bench.proxy.says(OLD, stated(OLD, bench.clocks.unix_s))
    layer = parse_manifest((await bench.ask()).body).layers[0].digest
    bench.clocks.pass_s(2)
    for _ in range(10):
        bench.book.missing(NAME, layer)
        await bench.ask()
        bench.clocks.pass_s(0.2)

    assert bench.proxy.asked == 1 + 2


# --- sizes ------------------------------------------------------------------------------------


async def test_a_manifest_speaks_of_sizes_for_its_own_repository_only(bench: Bench) -> None:
    """Anybody may push a manifest that claims anything about a layer of another repository."""
    image = build_image([b"today"])
    layer = digest_of(image.layers[0])
    bench.proxy.says(image.manifest, None)
    await bench.ask(digest_of(image.manifest))

    assert bench.book.size_of(NAME, layer) is not None
    assert bench.book.size_of(ImageName("docker.io", "library/other"), layer) is None
