"""How the index of a layer is named and asked for; what is in it: `p2pdist.streaming`."""

from __future__ import annotations

from typing import Final

from p2pdist.model.ids import Digest, TagKey, tag_key

INDEX_MEDIA_TYPE: Final = "application/vnd.p2pdist.layer-index.v1"
INDEX_VERSION: Final = 1
INDEX_BYTES_MAX: Final = 256 << 20
INDEXED_BYTES_MIN: Final = 1 << 20
"""Smaller layers are read whole, sooner than an index of them."""


def layer_index_key(layer: Digest) -> TagKey:
    """Under which a proxy's word on the index of a layer is kept and asked for, like that on a tag.

    No registry's name begins with a space, so that it is the key of no tag.
    """
    return tag_key(" layer index", str(INDEX_VERSION), layer)
