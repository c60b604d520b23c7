"""Of which type a manifest is that lies here."""

from __future__ import annotations

from p2pdist.oci.manifest import media_type_of, shows_manifest
from p2pdist.process.off_loop import parsed


async def kept_type(body: bytes, told: str) -> str | None:
    """Return the type of what lies here, kept with the type that a registry or a proxy told.

    None for what came without one and does not show that it is a manifest: a config or a layer.
    """
    try:
        return await parsed(lambda data: _type(data, told), body)
    except ValueError:
        return None


def _type(body: bytes, told: str) -> str | None:
    return media_type_of(body, told) if told or shows_manifest(body) else None
