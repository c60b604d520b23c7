"""Of all that was heard in vain, the client is told what is worth most."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from p2pdist.errors import ErrorReason, PeerFault, RegistryError, UpstreamError
from p2pdist.oci.names import ImageName
from p2pdist.oci.refusals import DEFINITE
from p2pdist.swarm.core.failures import Failures

NAME = ImageName("registry.test", "app")
SILENT = UpstreamError("http://proxy did not answer", reason=ErrorReason.NO_PROXY)


def failures() -> Failures:
    return Failures(NAME, f"{NAME}:1")


def test_nothing_heard_means_that_no_proxy_answers() -> None:
    refused = failures().refusal()

    assert (refused.status, refused.reason) == (502, ErrorReason.NO_PROXY)


@pytest.mark.parametrize("reason", sorted(set(ErrorReason) - DEFINITE))
def test_what_a_proxy_says_goes_on_as_it_is(reason: ErrorReason) -> None:
    heard = failures()

    heard.told(UpstreamError("it happened", status=502, reason=reason), "MANIFEST_UNKNOWN")

    assert heard.refusal().reason is reason
    assert str(heard.refusal()).startswith("it happened: ")


@pytest.mark.parametrize("reason", sorted(DEFINITE))
def test_a_decision_ends_the_search(reason: ErrorReason) -> None:
    with pytest.raises(RegistryError) as decided:
        failures().told(UpstreamError("no", status=404, reason=reason), "")

    assert decided.value.reason is reason


@pytest.mark.parametrize("first", [True, False])
def test_a_word_about_the_registry_is_worth_more_than_silence(first: bool) -> None:
    heard = failures()
    down = UpstreamError("down", status=502, reason=ErrorReason.REGISTRY_DOWN)

    tellings: list[Callable[[], object]] = [
        lambda: heard.told(down, ""),
        lambda: heard.proxy_failed(SILENT),
    ]
    for tell in tellings if first else reversed(tellings):
        tell()

    assert heard.refusal().reason is ErrorReason.REGISTRY_DOWN


def test_this_hosts_own_list_does_not_hide_that_no_proxy_answers() -> None:
    heard = failures()

    heard.proxy_failed(SILENT)
    heard.told(UpstreamError("x", status=404, reason=ErrorReason.NOT_LISTED), "")

    assert heard.refusal().reason is ErrorReason.NO_PROXY
    assert not heard.unlisted


def test_a_proxy_that_is_not_believed_is_not_away() -> None:
    heard = failures()

    heard.proxy_failed(PeerFault("statement by an unknown key"))

    assert heard.refusal().reason is ErrorReason.PROXY_ERROR


def test_a_host_without_descriptors_does_not_blame_its_proxies() -> None:
    heard = failures()

    heard.proxy_failed(UpstreamError("Too many open files", reason=ErrorReason.EXHAUSTED))

    assert (heard.refusal().status, heard.refusal().reason) == (503, ErrorReason.EXHAUSTED)


def test_a_registry_is_unlisted_when_all_say_so() -> None:
    heard = failures()
    assert not failures().unlisted

    heard.told(UpstreamError("x", status=404, reason=ErrorReason.NOT_LISTED), "")

    assert heard.unlisted
    assert (heard.refusal().status, heard.refusal().code) == (404, "NAME_UNKNOWN")
