from __future__ import annotations

import pytest

from p2pdist.errors import PeerFault
from p2pdist.model.members import Address, Member, Place, Role
from p2pdist.tracker.admission import check_member
from tests.tracker.hosts import host_id, member


def test_a_usual_host_is_taken_in() -> None:
    check_member(member(1, "dc1/"))


@pytest.mark.parametrize(
    ("place", "addresses"),
    [
        (Place(""), ()),
        (Place("d" * 254), ()),
        (Place("dc1", "r\n"), ()),
        (Place("dc1"), (Address("", 80),)),
        (Place("dc1"), (Address("10.0.0.1", 0),)),
        (Place("dc1"), (Address("10.0.0.1", 65536),)),
        (Place("dc1"), (Address("10.0.0.1", 80),) * 9),
    ],
)
def test_a_malformed_host_is_not_taken_in(place: Place, addresses: tuple[Address, ...]) -> None:
    with pytest.raises(PeerFault):
        check_member(Member(host_id(1), Role.PEER, place, addresses))
