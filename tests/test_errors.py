"""Errors: whose fault each is, and what it tells those who catch it."""

from __future__ import annotations

import errno

import pytest

from p2pdist.errors import (
    BlobGone,
    CannotListen,
    ConfigError,
    ErrorReason,
    LinkRefused,
    P2pdistError,
    PeerFault,
    RegistryError,
    StoreError,
    UnknownKey,
    UpstreamError,
    WrongSecret,
)


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (0, ErrorReason.REGISTRY_DOWN),
        (401, ErrorReason.CREDENTIALS),
        (403, ErrorReason.DENIED),
        (404, ErrorReason.UNKNOWN),
        (410, ErrorReason.UNKNOWN),
        (429, ErrorReason.RATE_LIMITED),
        (500, ErrorReason.REGISTRY_ERROR),
        (302, ErrorReason.REGISTRY_ERROR),
    ],
)
def test_a_status_of_a_registry_has_its_reason(status: int, reason: ErrorReason) -> None:
    assert UpstreamError("x", status=status).reason is reason


def test_a_reason_that_is_known_stands_above_the_status() -> None:
    told = UpstreamError("x", status=404, reason=ErrorReason.DENIED)

    assert (told.status, told.reason) == (404, ErrorReason.DENIED)


@pytest.mark.parametrize("error", [WrongSecret(), UnknownKey("ab")])
def test_a_fault_of_a_peer_is_caught_as_one(error: PeerFault) -> None:
    with pytest.raises(PeerFault):
        raise error
    assert PeerFault("x").reason == WrongSecret().reason == "proto"
    assert UnknownKey("ab").reason == "map"
    assert "ab" in str(UnknownKey("ab"))


def test_an_address_that_cannot_be_bound_is_an_error_of_the_system() -> None:
    """Not one of ours: what opens sockets handles OSError, and reads its errno."""
    error = CannotListen("10.0.0.1", 5100, OSError(errno.EADDRINUSE, "Address already in use"))

    assert not isinstance(error, P2pdistError)
    assert error.errno == errno.EADDRINUSE
    assert str(error) == "cannot listen on 10.0.0.1:5100: Address already in use"
    assert "unnamed" in str(CannotListen("h", 1, OSError("unnamed")))


def test_bytes_that_are_gone_are_a_fault_of_the_store_with_room_left() -> None:
    gone = BlobGone("gone")

    assert isinstance(gone, StoreError)
    assert (gone.full, gone.no_descriptors) == (False, False)


def test_what_is_refused_says_when_to_come_back() -> None:
    refused = LinkRefused("full", 30.0)

    assert (refused.reason, refused.retry_s) == ("full", 30.0)
    assert str(refused).endswith("full; ask again in 30 s")


def test_a_wrong_request_has_no_reason_of_ours() -> None:
    assert RegistryError(400, "NAME_INVALID", "x").reason is None
    assert ConfigError("x").hint == ""
