"""Which addresses an upstream may lead us to."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pdist.model.private_places import Reach, parse_private_place

EVERYTHING = ("0.0.0.0/0", "::/0")


def allows(
    target: str, address: str, *places: str, own: tuple[str, int] = ("registry.corp", 443)
) -> bool:
    """Whether `host port` may be asked at `address` by the registry `own`."""
    host, _, port = target.partition(" ")
    reach = Reach(*own, tuple(map(parse_private_place, places)))
    return reach.allows(host, int(port or own[1]), ipaddress.ip_address(address))


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101"])
def test_public_addresses_are_for_all(text: str) -> None:
    assert allows("cdn.test 8443", text)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.0.0.1", "192.168.1.1", "100.64.0.1", "::1", "fd00::1", "::ffff:10.0.0.1"],
)
def test_private_addresses_are_for_those_who_may(text: str) -> None:
    assert not allows("cdn.test", text)
    assert allows("cdn.test", text, *EVERYTHING)


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "240.0.0.1",
        "255.255.255.255", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_rc66_metadata_and_odd_addresses_are_for_nobody(text: str) -> None:
    assert not allows("cdn.test", text, *EVERYTHING)
    assert not allows(text, text, text, own=(text, 443))


@given(st.ip_addresses(v=4, network="127.0.0.0/8"))
def test_no_spelling_of_loopback_is_public(address: ipaddress.IPv4Address) -> None:
    assert not allows("cdn.test", str(address))
    assert not allows("cdn.test", f"::ffff:{address}")


@pytest.mark.parametrize("host", ["10.0.0.5", "localhost", "::1"])
def test_an_address_as_the_url_says_that_the_registry_is_private(host: str) -> None:
    address = "127.0.0.1" if host == "localhost" else host
    own = host, 5000

    assert allows(f"{host} 5000", address, own=own)
    assert not allows(f"{host} 5001", address, own=own)
    assert not allows(f"{host} 80", address, own=own)
    assert not allows("rebound.test 5000", address, own=own)


def test_a_name_as_the_url_is_private_once_private_places_are_named() -> None:
    assert not allows("registry.corp", "10.0.0.5")
    assert allows("registry.corp", "10.0.0.5", "minio.corp:9000")
    assert not allows("registry.corp 2379", "10.0.0.5", "minio.corp:9000")


@pytest.mark.parametrize(
    ("place", "target", "address"),
    [
        ("minio.corp", "minio.corp 443", "10.0.0.6"),
        ("Minio.Corp.", "minio.corp 80", "10.0.0.6"),
        ("minio.corp", "MINIO.corp. 5000", "10.0.0.6"),
        ("minio.corp:9000", "minio.corp 9000", "10.0.0.6"),
        ("10.0.0.6", "any.test", "10.0.0.6"),
        ("10.0.0.6:9000", "10.0.0.6 9000", "10.0.0.6"),
        ("10.0.0.0/8", "any.test", "10.200.0.1"),
        ("10.0.0.0/8:9000", "any.test 9000", "10.200.0.1"),
        ("10.0.0.0/8", "any.test", "::ffff:10.200.0.1"),
        ("fd00::/8", "any.test", "fd12::1"),
        ("[fd00::/8]:9000", "any.test 9000", "fd12::1"),
        ("fd00::6", "fd00::6", "fd00::6"),
        ("[fd00::6]:9000", "fd00::6 9000", "fd00::6"),
    ],
)
def test_what_is_named_is_reached(place: str, target: str, address: str) -> None:
    assert allows(target, address, place, own=("registry.corp", 5000))


@pytest.mark.parametrize(
    ("place", "target", "address"),
    [
        ("minio.corp", "minio.corp 9000", "10.0.0.6"),
        ("minio.corp:9000", "minio.corp 443", "10.0.0.6"),
        ("minio.corp", "x.minio.corp", "10.0.0.6"),
        ("minio.corp", "evilminio.corp", "10.0.0.6"),
        ("10.0.0.6", "any.test", "10.0.0.7"),
        ("10.0.0.0/8", "any.test", "192.168.0.1"),
        ("10.0.0.0/8", "any.test 2379", "10.200.0.1"),
        ("0.0.0.0/0", "any.test", "fd00::1"),
    ],
)
def test_what_is_not_named_is_not(place: str, target: str, address: str) -> None:
    assert not allows(target, address, place)


@pytest.mark.parametrize(
    "text",
    [
        "", "true", "no", "10.0.0.0/33", "10.0.0.1/8", "a b", "host:", "host:0", "host:65536",
        "host:x", "http://host", "[host]:1", "host/8", "fd00::/129", "[fd00::6", "-host",
        "user@host", "*.corp",
    ],
)  # fmt: skip
def test_what_is_no_place_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no host, address or network"):
        parse_private_place(text)


@given(st.text())
def test_a_place_that_is_read_is_shown_as_it_was_written(text: str) -> None:
    try:
        place = parse_private_place(text)
    except ValueError:
        return
    assert str(place) == text
    assert place.host or place.network is not None
