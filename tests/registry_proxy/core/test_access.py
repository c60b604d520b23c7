"""What may leave a proxy follows from what may be served now, not from what was read before."""

from __future__ import annotations

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.access import Access
from p2pdist.swarm.core.links import Links

SHARED, WITHDRAWN = ImageName("docker.io", "library/app"), ImageName("corp.example", "app")
LAYER = digest_of(b"layer")


def access(*names: ImageName) -> Access:
    """Of a proxy that shares one of two registries; `names` have the layer."""
    links = Links()
    for name in names:
        links.tell(name, LAYER, 1000)
    return Access([SHARED.upstream], links)


def test_what_only_a_withdrawn_registry_has_stays_in() -> None:
    assert not access(WITHDRAWN).servable(LAYER)
    assert access(WITHDRAWN).where(LAYER) == []


def test_what_a_shared_registry_has_as_well_may_leave_by_its_name() -> None:
    both = access(SHARED, WITHDRAWN)

    assert both.servable(LAYER)
    assert both.where(LAYER) == [SHARED]


def test_what_nobody_named_stays_in() -> None:
    assert not access().servable(LAYER)


# --- what another registry's account read -------------------------------------------------------

OPEN, PAID = ImageName("docker.io", "mallory/x"), ImageName("ghcr.io", "secret/app")


def by_account(*named: ImageName, delivered: str = "") -> Access:
    links = Links()
    for name in named:
        links.tell(name, LAYER, 1000)
    if delivered:
        links.delivered(delivered, LAYER)
    return Access([OPEN.upstream, PAID.upstream], links, accounts=[PAID.upstream])


def test_a_registry_must_show_what_may_have_come_by_anothers_account() -> None:
    assert by_account(PAID, OPEN).must_show(OPEN, LAYER)
    assert not by_account(PAID, OPEN).must_show(PAID, LAYER)


def test_what_it_delivered_it_need_not_show() -> None:
    assert not by_account(PAID, OPEN, delivered=OPEN.upstream).must_show(OPEN, LAYER)


def test_what_no_account_has_read_nobody_must_show() -> None:
    assert not by_account(OPEN).must_show(OPEN, LAYER)
    assert not by_account(OPEN).must_show(PAID, LAYER)


def test_names_that_push_others_out_do_not_push_out_the_account() -> None:
    own = [ImageName(OPEN.upstream, f"mallory/{n}") for n in range(40)]
    access = by_account(PAID, *own)

    assert PAID not in access.where(LAYER)
    assert access.must_show(own[-1], LAYER)
