from __future__ import annotations

from random import Random

from p2pdist.model.control import Delta
from p2pdist.model.members import Distance, Role
from p2pdist.model.rendezvous import ranked
from p2pdist.tracker.core.handouts import HANDOUT_SIZE, choose, owner_of
from p2pdist.tracker.core.swarms import Host, Swarms
from tests.tracker.hosts import host_id, key, member, seed


class World:
    """One swarm with members added by hand."""

    def __init__(self) -> None:
        self.swarms = Swarms()
        self.reader = Host(member(1, "dc1/r1"))

    def add(self, number: int, place: str, held: int, role: Role = Role.PEER) -> Host:
        """`held` 8 is the whole blob, 0 an interested reader."""
        host = Host(member(number, place, role))
        self.swarms.set_interest(host, key(), True)
        self.swarms.note(host, Delta(key(), held, held == 8))
        return host

    def named(
        self, exclude: tuple[str, ...] = (), owner: Host | None = None, size: int = 16
    ) -> list[Host]:
        swarm = self.swarms.get(key())
        return choose(swarm, self.reader, owner, exclude, Random(3), size)


def test_the_own_rack_comes_before_the_rest_of_the_datacenter() -> None:
    world = World()
    far = world.add(2, "dc1/r2", 8)
    near = world.add(3, "dc1/r1", 8)

    assert world.named() == [near, far]


def test_the_fullest_of_a_place_comes_first_and_the_empty_reader_last() -> None:
    world = World()
    empty = world.add(2, "dc1/r2", 0)
    half = world.add(3, "dc1/r2", 4)
    full = world.add(4, "dc1/r2", 8)
    little = world.add(5, "dc1/r2", 1)

    assert world.named() == [full, half, little, empty]


def test_half_of_the_places_are_drawn_from_the_whole_datacenter() -> None:
    world = World()
    for i in range(2, 202):
        world.add(i, "dc1/r1" if i < 42 else "dc1/r2", 4)

    distances = [world.reader.member.place.distance(h.member.place) for h in world.named()]

    assert distances[:8] == [Distance.RACK] * 8
    assert Distance.DC in distances[8:]
    assert distances == sorted(distances)


def test_seeds_leave_half_of_the_places_to_readers_that_hold_something() -> None:
    world = World()
    for i in range(2, 42):
        world.add(i, "dc1/r2", 8 if i % 2 else 4)

    complete = [host.entries[key()].complete for host in world.named()]

    assert complete == [True] * 8 + [False] * 8


def test_a_small_rack_is_topped_up_from_the_datacenter() -> None:
    world = World()
    near = world.add(2, "dc1/r1", 4)
    for i in range(3, 33):
        world.add(i, "dc1/r2", 4)

    named = world.named()

    assert named[0] is near
    assert len(named) == 16


def test_the_reader_and_the_excluded_are_never_named() -> None:
    world = World()
    world.swarms.set_interest(world.reader, key(), True)
    world.add(2, "dc1/r1", 8)
    other = world.add(3, "dc1/r1", 8)

    assert world.named(exclude=(host_id(2),)) == [other]


def test_the_owning_proxy_is_always_named_first() -> None:
    world = World()
    owner = Host(member(9, "dc1", Role.PROXY))
    near = world.add(2, "dc1/r1", 8)

    assert world.named(owner=owner) == [owner, near]


def test_an_owner_that_is_a_member_is_named_once() -> None:
    world = World()
    owner = world.add(9, "dc1", 8, Role.PROXY)

    assert world.named(owner=owner) == [owner]


def test_another_datacenter_is_named_only_by_its_proxies() -> None:
    world = World()
    world.add(2, "dc2/r1", 8)
    abroad = world.add(3, "dc2", 8, Role.PROXY)

    assert world.named() == [abroad]


def test_another_datacenter_is_not_named_while_something_nearer_holds() -> None:
    world = World()
    world.add(3, "dc2", 8, Role.PROXY)
    near = world.add(2, "dc1/r2", 1)

    assert world.named() == [near]


def test_another_datacenter_is_not_named_to_a_reader_with_a_proxy_of_its_own() -> None:
    world = World()
    world.add(3, "dc2", 8, Role.PROXY)
    owner = Host(member(9, "dc1", Role.PROXY))

    assert world.named(owner=owner) == [owner]


def test_a_proxy_that_owns_the_key_is_sent_to_the_proxies_that_hold_it() -> None:
    world = World()
    world.reader = Host(member(1, "dc1", Role.PROXY))
    abroad = world.add(3, "dc2", 4, Role.PROXY)
    waiting = world.add(4, "dc1/r1", 0)

    assert world.named(owner=world.reader) == [abroad, waiting]


def test_ties_are_left_to_chance() -> None:
    world = World()
    for i in range(2, 60):
        world.add(i, "dc1/r2", 8)
    swarm = world.swarms.get(key())

    drawn = {
        tuple(host.host_id for host in choose(swarm, world.reader, None, (), Random(seed_number)))
        for seed_number in range(10)
    }

    assert len(drawn) == 10


def test_the_owner_is_the_first_by_rendezvous_that_is_not_excluded() -> None:
    proxies = [host_id(i) for i in range(5)]
    first, second, *_ = ranked(key(), proxies)

    assert owner_of(key(), proxies, ()) == first
    assert owner_of(key(), proxies, [first]) == second
    assert owner_of(key(), [], ()) is None


def test_a_swarm_of_seeds_alone_fills_a_handout() -> None:
    swarms, reader = Swarms(), Host(member(1, "dc1/r1"))
    for i in range(2, 40):
        swarms.note(Host(member(i, "dc1/r2")), seed(key()))

    assert len(choose(swarms.get(key()), reader, None, (), Random(1))) == HANDOUT_SIZE
