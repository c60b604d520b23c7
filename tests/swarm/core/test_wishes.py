"""Wishes for blobs that are not here, by blob and by host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from p2pdist.exchange.frames import Interest
from p2pdist.model.ids import Digest, HostId
from p2pdist.swarm.core.wishes import Wishes

BLOBS = [Digest(f"sha256:{n:064x}") for n in range(4)]
HOSTS = [HostId(f"{n:032x}") for n in range(3)]


def test_who_takes_a_blob_up_finds_who_wished_for_it() -> None:
    wishes = Wishes(10)
    wishes.add(HOSTS[0], Interest(BLOBS[0]))
    wishes.add(HOSTS[1], Interest(BLOBS[0], bulk=True))

    assert BLOBS[0] in wishes
    assert wishes.take(BLOBS[0]) == {
        HOSTS[0]: Interest(BLOBS[0]),
        HOSTS[1]: Interest(BLOBS[0], bulk=True),
    }
    assert BLOBS[0] not in wishes
    assert wishes.take(BLOBS[0]) == {}


def test_a_host_that_is_gone_wishes_for_nothing() -> None:
    wishes = Wishes(10)
    for blob in BLOBS:
        wishes.add(HOSTS[0], Interest(blob))
    wishes.add(HOSTS[1], Interest(BLOBS[0]))

    wishes.forget(HOSTS[0])

    assert len(wishes) == 1
    assert wishes.take(BLOBS[0]) == {HOSTS[1]: Interest(BLOBS[0])}


def test_the_blob_wished_for_first_makes_room() -> None:
    wishes = Wishes(2)
    for blob in BLOBS[:3]:
        wishes.add(HOSTS[0], Interest(blob))

    assert [bool(wishes.take(blob)) for blob in BLOBS[:3]] == [False, True, True]


events = st.lists(
    st.tuples(
        st.sampled_from(("add", "withdraw", "forget", "take")),
        st.sampled_from(HOSTS),
        st.sampled_from(BLOBS),
    )
)


@given(events)
def test_any_order_of_events_leaves_what_a_plain_set_of_pairs_has(
    done: list[tuple[str, HostId, Digest]],
) -> None:
    wishes, pairs = Wishes(len(BLOBS)), set[tuple[HostId, Digest]]()
    for what, host, blob in done:
        match what:
            case "add":
                wishes.add(host, Interest(blob))
                pairs.add((host, blob))
            case "withdraw":
                wishes.withdraw(host, blob)
                pairs.discard((host, blob))
            case "forget":
                wishes.forget(host)
                pairs = {pair for pair in pairs if pair[0] != host}
            case _:
                taken = {(h, blob) for h in wishes.take(blob)}
                assert taken == {pair for pair in pairs if pair[1] == blob}
                pairs -= taken

    assert {(host, blob) for blob in BLOBS for host in wishes.take(blob)} == pairs
