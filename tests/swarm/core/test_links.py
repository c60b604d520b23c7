"""Which repository may read which digest."""

from __future__ import annotations

from p2pdist.model.ids import Digest, digest_of
from p2pdist.oci.manifest import Descriptor, ManifestInfo
from p2pdist.oci.names import ImageName
from p2pdist.swarm.core.links import Links

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

    assert [links.claim(APP, d) for d in (CONFIG, LAYER)] == [10, 1000]
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


def test_a_size_is_the_claim_of_the_repository_that_it_was_told_for() -> None:
    links = Links()
    links.link(APP, image(1000))
    links.link(OTHER, image(5))
    links.tell(OTHER, LAYER, 0)

    assert (links.claim(APP, LAYER), links.claim(OTHER, LAYER)) == (1000, 0)


def test_a_manifest_speaks_after_the_registry() -> None:
    """A HEAD is asked for what no manifest named, and may be wrong."""
    links = Links()
    links.tell(APP, LAYER, 0)

    links.link(APP, image(1000))

    assert links.claim(APP, LAYER) == 1000


def test_a_refuted_claim_gives_way_to_what_the_body_showed() -> None:
    links = Links()
    links.link(OTHER, image(5))
    links.link(APP, image(1000))

    links.refute(OTHER, LAYER, 5, 1000)
    links.link(OTHER, image(5))

    assert (links.claim(APP, LAYER), links.claim(OTHER, LAYER)) == (1000, 1000)


def test_a_refuted_claim_without_another_one_leaves_none() -> None:
    links = Links()
    links.link(APP, image(5))

    links.refute(APP, LAYER, 5, None)

    assert links.claim(APP, LAYER) is None
    assert links.allowed(APP, LAYER)


def test_a_late_refutation_does_not_touch_a_newer_claim() -> None:
    links = Links()
    links.link(APP, image(5))
    links.link(APP, image(1000))

    links.refute(APP, LAYER, 5, 7)

    assert links.claim(APP, LAYER) == 1000


def test_the_number_of_digests_is_bounded() -> None:
    links = Links(links_max=10)

    for i in range(100):
        links.tell(APP, digest_of(bytes([i])), i)

    assert len(links) == 10


def test_the_number_of_repositories_of_a_digest_is_bounded() -> None:
    links = Links(names_max=3)
    names = [ImageName("docker.io", f"r{i}") for i in range(10)]

    for name in names:
        links.tell(name, LAYER, 1)

    assert links.where(LAYER) == names[:-4:-1]


def test_a_snapshot_restores_what_was_linked() -> None:
    links = Links()
    links.link(APP, image())
    links.tell(OTHER, CHILD, 7, media_type="application/y", is_manifest=True)
    restored = Links()

    restored.restore(links.records())

    assert list(restored.records()) == list(links.records())
    assert restored.allowed(APP, LAYER)
    assert restored.is_manifest(CHILD)


def test_a_snapshot_does_not_overrule_what_is_known() -> None:
    old, fresh = Links(), Links()
    old.tell(OTHER, LAYER, 5)
    fresh.tell(APP, LAYER, 1000)

    fresh.restore(old.records())

    assert (fresh.claim(APP, LAYER), fresh.where(LAYER)) == (1000, [APP])


# --- what was made of a blob ----------------------------------------------------------------------


def test_what_was_made_of_a_layer_is_where_the_layer_is_and_nowhere_else() -> None:
    links, made = Links(), digest_of(b"made")
    layer = digest_of(b"layer")
    links.tell(APP, layer, 5, media_type="application/vnd.oci.image.layer.v1.tar+gzip")
    links.derive(made, layer, 77)
    assert links.made_of(made) == layer
    assert links.where(made) == [APP]
    assert links.claim(APP, made) == 77
    assert links.allowed(APP, made)
    assert not links.allowed(OTHER, made)
    assert links.claim(OTHER, made) is None
    links.tell(OTHER, layer, 5)
    assert links.where(made) == [OTHER, APP]


def test_a_manifest_that_names_what_we_made_gets_it_no_sooner() -> None:
    links, made = Links(), digest_of(b"made")
    layer = digest_of(b"layer")
    links.tell(APP, layer, 5)
    links.derive(made, layer, 77)
    links.tell(OTHER, made, 77)
    assert not links.allowed(OTHER, made)
    assert links.where(made) == [APP]


def test_what_was_made_is_known_after_a_restart() -> None:
    links, made = Links(), digest_of(b"made")
    layer = digest_of(b"layer")
    links.tell(APP, layer, 5)
    links.derive(made, layer, 77)
    again = Links()
    again.restore(list(links.records()))
    assert again.made_of(made) == layer
    assert again.claim(APP, made) == 77
