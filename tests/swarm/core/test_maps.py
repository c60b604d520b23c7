"""Which map of a blob is followed, and when another one takes over."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.errors import PeerFault
from p2pdist.model.chunkmap import ChunkMap, MapState
from p2pdist.model.geometry import geometry_for
from p2pdist.model.ids import Digest, MapId
from p2pdist.model.statements import MapHead
from p2pdist.swarm.core.maps import MAP_STUCK_S, MapChoice

DIGEST = Digest("sha256:" + "a" * 64)
SIZES = (3 << 20, 7 << 20)
STUCK_S = MAP_STUCK_S + 1


def head(letter: bytes, size: int = SIZES[0]) -> MapHead:
    return MapHead(DIGEST, MapId(letter * 16), size, geometry_for(size).chunk_size_bytes, 1)


def chunk_map(letter: bytes, size: int = SIZES[0], *, sealed: bool = False) -> ChunkMap:
    made = ChunkMap(head(letter, size), b"record")
    if sealed:
        made.state = MapState.SEALED
    return made


def hear(
    choice: MapChoice,
    told: MapHead,
    followed: ChunkMap | None,
    *,
    complete: bool = False,
    revoked: bool = False,
) -> ChunkMap | None:
    return choice.heard(told, b"record", followed=followed, complete=complete, revoked=revoked)


def test_the_first_map_is_followed() -> None:
    adopted = hear(MapChoice(), head(b"a"), None)
    assert adopted is not None
    assert adopted.map_id == head(b"a").map_id
    assert adopted.records == [b"record"]


def test_a_revoked_map_is_never_followed() -> None:
    choice = MapChoice()
    assert hear(choice, head(b"a"), None, revoked=True) is None
    assert hear(choice, head(b"a"), chunk_map(b"b"), revoked=True) is None
    assert choice.rival is None


def test_a_rival_takes_over_when_ours_stands_still() -> None:
    choice = MapChoice()
    assert hear(choice, head(b"b"), chunk_map(b"a")) is None
    assert choice.stuck(MAP_STUCK_S, complete=False) is None
    rival = choice.stuck(STUCK_S, complete=False)
    assert rival is not None
    assert rival.map_id == head(b"b").map_id
    assert choice.stuck(STUCK_S, complete=False) is None, "once"


def test_a_blob_that_is_whole_needs_no_other_map() -> None:
    choice = MapChoice()
    hear(choice, head(b"b"), chunk_map(b"a"))
    assert choice.stuck(STUCK_S, complete=True) is None
    hear(other := MapChoice(), head(b"b"), chunk_map(b"a"), complete=True)
    assert other.rival is None


def test_a_seal_proves_the_size() -> None:
    choice, rivals = MapChoice(), []
    for heard in (head(b"b", SIZES[1]), head(b"b")):
        hear(choice, heard, chunk_map(b"a", sealed=True))
        rivals.append(choice.rival)
    assert rivals == [None, head(b"b").map_id]
    hear(other := MapChoice(), head(b"b", SIZES[1]), chunk_map(b"a"))
    assert other.rival == head(b"b").map_id


def test_a_rival_that_is_revoked_meanwhile_does_not_take_over() -> None:
    choice = MapChoice()
    hear(choice, head(b"b"), chunk_map(b"a"))
    choice.revoked(head(b"c").map_id)
    assert choice.rival == head(b"b").map_id
    choice.revoked(head(b"b").map_id)
    assert choice.stuck(STUCK_S, complete=False) is None


def test_a_map_that_is_taken_up_ends_the_contest() -> None:
    choice = MapChoice()
    hear(choice, head(b"b"), chunk_map(b"a"))
    choice.settled()
    assert choice.stuck(STUCK_S, complete=False) is None


def test_a_head_that_is_cut_wrongly_is_a_fault() -> None:
    wrong = MapHead(DIGEST, MapId(b"w" * 16), SIZES[0], 12_345, 1)
    with pytest.raises(PeerFault):
        hear(MapChoice(), wrong, None)


@given(
    st.lists(
        st.tuples(st.sampled_from([b"a", b"b", b"c"]), st.sampled_from(SIZES), st.booleans()),
        max_size=12,
    ),
    st.booleans(),
)
def test_whatever_is_heard_only_a_lasting_silence_changes_the_map(
    heard: list[tuple[bytes, int, bool]], sealed: bool
) -> None:
    choice, ours = MapChoice(), chunk_map(b"a", sealed=sealed)
    allowed = set()
    for letter, size, revoked in heard:
        assert hear(choice, head(letter, size), ours, revoked=revoked) is None
        if letter != b"a" and not revoked and (size == SIZES[0] or not sealed):
            allowed.add(head(letter, size).map_id)
    assert choice.stuck(0.0, complete=False) is None
    rival = choice.stuck(STUCK_S, complete=False)
    assert (rival is None) == (not allowed)
    assert rival is None or rival.map_id in allowed


def test_a_rival_by_a_key_that_is_dropped_does_not_take_over() -> None:
    choice = MapChoice()
    hear(choice, head(b"b"), chunk_map(b"a"))
    choice.keys_changed(lambda signer: True)
    assert choice.rival == head(b"b").map_id

    choice.keys_changed(lambda signer: False)

    assert choice.rival is None
