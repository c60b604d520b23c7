"""Tag lists as registries answer them."""

from __future__ import annotations

import msgspec

from p2pdist.oci.reference import valid_tag


class _TagsJson(msgspec.Struct):
    tags: list[str] | None = None


def parse_tag_list(body: bytes) -> list[str]:
    """Return the tags in their order without what is none; raise ValueError for no tag list."""
    try:
        found = msgspec.json.decode(body, type=_TagsJson).tags or []
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise ValueError("a tag list that is none") from None
    return [tag for tag in found if valid_tag(tag)]
