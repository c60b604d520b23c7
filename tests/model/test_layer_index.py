from __future__ import annotations

from p2pdist.model.ids import digest_of, tag_key
from p2pdist.model.layer_index import INDEX_VERSION, layer_index_key

LAYER = digest_of(b"layer")


def test_each_layer_has_a_key_of_its_own() -> None:
    assert layer_index_key(LAYER) == layer_index_key(LAYER) != layer_index_key(digest_of(b"other"))
    assert len(layer_index_key(LAYER)) == 32


def test_it_is_the_key_of_no_tag() -> None:
    """What a tag of that name in a repository of that version would have."""
    for registry in ("layer index", "layer index "):
        assert tag_key(registry, str(INDEX_VERSION), LAYER) != layer_index_key(LAYER)
