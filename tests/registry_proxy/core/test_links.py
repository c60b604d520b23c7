"""Which repository may read which digest."""

from __future__ import annotations

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import Descriptor, ManifestInfo
from p2pdist.oci.names import ImageName
from p2pdist.registry_proxy.core.links import Links

APP = ImageName("docker.io", "library/app")
OTHER = ImageName("docker.io", "library/other")
CONFIG, LAYER, CHILD = (digest_of(text) for text in (b"config", b"layer", b"child"))


def blob(digest: Digest, size: int = 1000) -> Descriptor:
    return Descriptor(digest, size, "application/x")


def image(layer_size: int = 1000) -> ManifestInfo:
    return ManifestInfo(
        "image", "application/x", config=blob(CONFIG, 10), layers=(blob(LAYER, layer_size),)
    )


def test_an_image_links_its_config_and_layers() -> None:
    links = Links()

    links.link(APP, image())

    assert [links.size_of(d) for d in (CONFIG, LAYER)] == [10, 1000]
    assert links.where(LAYER) == [APP]
    assert not links.is_manifest(LAYER)


def test_an_index_links_its_children_as_manifests() -> None:
    links = Links()

    links.link(APP, ManifestInfo("index", "application/x", manifests=(blob(CHILD),)))

    assert links.is_manifest(CHILD)
    assert links.allowed(APP, CHILD)


def test_rc61_a_digest_is_no_right_to_read_it() -> None:
    links = Links()
    links.link(APP, image())

    assert links.allowed(APP, LAYER)
    assert not links.allowed(OTHER, LAYER)


def test_the_repository_that_named_a_blob_last_comes_first() -> None:
    links = Links()
    for name in (APP, OTHER, APP):
        links.link(name, image())

    assert links.where(LAYER) == [APP, OTHER]


def test_two_declared_sizes_are_none_until_the_registry_speaks() -> None:
    links = Links()
    links.link(APP, image(1000))
    links.link(OTHER, image(5))

    disputed = links.size_of(LAYER)
    links.settle(APP, LAYER, 1000)

    assert disputed is None
    assert links.size_of(LAYER) == 1000


def test_a_settled_size_is_not_disputed_any_more() -> None:
    links = Links()
    links.settle(APP, LAYER, 1000)

    links.link(OTHER, image(5))

    assert links.size_of(LAYER) == 1000


def test_the_number_of_digests_is_bounded() -> None:
    links = Links(links_max=10)

    for i in range(100):
        links.settle(APP, digest_of(bytes([i])), i)

    assert len(links) == 10


def test_the_number_of_repositories_of_a_digest_is_bounded() -> None:
    links = Links(names_max=3)
    names = [ImageName("docker.io", f"r{i}") for i in range(10)]

    for name in names:
        links.settle(name, LAYER, 1)

    assert links.where(LAYER) == names[:-4:-1]


def test_a_snapshot_restores_what_was_linked() -> None:
    links = Links()
    links.link(APP, image())
    links.settle(OTHER, CHILD, 7, media_type="application/y", is_manifest=True)
    restored = Links()

    restored.restore(links.records())

    assert list(restored.records()) == list(links.records())
    assert restored.allowed(APP, LAYER)
    assert restored.is_manifest(CHILD)


def test_a_snapshot_does_not_overrule_what_is_known() -> None:
    old, fresh = Links(), Links()
    old.settle(OTHER, LAYER, 5)
    fresh.settle(APP, LAYER, 1000)

    fresh.restore(old.records())

    assert (fresh.size_of(LAYER), fresh.where(LAYER)) == (1000, [APP])
