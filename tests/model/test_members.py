from __future__ import annotations

from p2pdist.model.members import Address, Distance, Place


def test_the_same_rack_is_nearer_than_the_same_datacenter() -> None:
    here = Place("dc1", "r1")

    assert here.distance(Place("dc1", "r1")) is Distance.RACK
    assert here.distance(Place("dc1", "r2")) is Distance.DC
    assert here.distance(Place("dc2", "r1")) is Distance.ELSEWHERE


def test_an_unnamed_rack_is_nobodys_rack() -> None:
    assert Place("dc1").distance(Place("dc1")) is Distance.DC


def test_addresses_are_shown_as_they_are_dialled() -> None:
    assert str(Address("10.0.0.1", 80)) == "10.0.0.1:80"
    assert str(Address("::1", 80)) == "[::1]:80"
