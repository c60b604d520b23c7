from __future__ import annotations

from random import Random

from p2pdist.model.clones import HOSTS_MAX, INSTANCES_MAX, CloneBook
from p2pdist.model.ids import HostId

HOST = HostId("a" * 32)


class Server:
    """Keeps the newest connection of a host, unless the book says that there are two of it."""

    def __init__(self, host: HostId = HOST, book: CloneBook | None = None) -> None:
        self.host = host
        self.book = book or CloneBook()
        self.connected: bytes | None = None

    def comes(self, instance: bytes) -> bool:
        """Whether it is taken in."""
        if self.connected is not None:
            if self.book.both_alive(self.host, instance, self.connected):
                return False
            self.book.replaced(self.host, self.connected, instance)
        self.connected = instance
        return True

    def goes(self) -> None:
        self.connected = None


def test_who_comes_back_for_the_place_of_its_successor_is_a_second_host() -> None:
    server = Server()

    assert [server.comes(one) for one in (b"x", b"y", b"x")] == [True, True, False]
    assert server.connected == b"y", "the one that is there stays"
    assert not server.comes(b"x")


def test_of_many_hosts_all_but_one_are_told() -> None:
    server = Server()
    hosts = [b"%d" % number for number in range(INSTANCES_MAX)]

    assert all(server.comes(one) for one in hosts)
    assert [server.comes(one) for one in hosts] == [False] * (len(hosts) - 1) + [True]


def test_more_hosts_than_are_remembered_are_told_in_the_end() -> None:
    server, rng = Server(), Random(1)
    left = [b"%d" % number for number in range(3 * INSTANCES_MAX)]

    for _ in range(20):
        rng.shuffle(left)
        left = [one for one in left if server.comes(one)]

    assert len(left) == 1


def test_a_host_whose_connections_break_is_one_host() -> None:
    server = Server()

    for _ in range(100):
        assert server.comes(b"x"), "the old connection is not known to be broken"
    server.goes()
    assert server.comes(b"x")


def test_a_host_that_is_started_again_and_again_is_one_host() -> None:
    """Killed each time, so that its old connection is still there when the new one comes."""
    server = Server()

    for start in range(100):
        for _ in range(3):
            assert server.comes(b"%d" % start)


def test_a_host_that_comes_back_when_the_other_has_gone_is_taken_in() -> None:
    server = Server()
    server.comes(b"x")
    server.comes(b"y")
    server.goes()

    assert server.comes(b"x")
    assert server.comes(b"x"), "its connection broke: nobody else is there"


def test_of_older_versions_nothing_can_be_told() -> None:
    server = Server()

    assert all(server.comes(one) for one in (b"", b"x", b"", b"x", b"", b"", b"x"))


def test_hosts_have_nothing_to_do_with_each_other_and_the_oldest_is_forgotten() -> None:
    book = CloneBook()
    one, other = Server(HOST, book), Server(HostId("b" * 32), book)
    for server in (one, other):
        server.comes(b"x")
        server.comes(b"y")
        assert not server.comes(b"x")

    for number in range(HOSTS_MAX - 1):
        book.replaced(HostId(f"{number:032x}"), b"x", b"y")

    assert not other.comes(b"x")
    assert one.comes(b"x")


def test_what_is_remembered_is_bounded() -> None:
    book = CloneBook()
    for number in range(3 * INSTANCES_MAX):
        book.replaced(HOST, b"%d" % number, b"%d" % (number + 1))

    assert not book.both_alive(HOST, b"0", b"last")
    assert book.both_alive(HOST, b"%d" % (3 * INSTANCES_MAX - 1), b"last")
