"""What may leave a proxy follows from what may be served now, not from what was read before."""

from __future__ import annotations

from p2pdist.model.ids import digest_of
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.access import Access
from p2pdist.registry_proxy.core.links import Links

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
