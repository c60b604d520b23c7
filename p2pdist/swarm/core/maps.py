"""Which of the maps that proxies signed for one blob is followed.

Proxies that do not hear each other may each open a map of the same blob. The first one that is
heard is followed; another one is its rival, and takes over when the first stands still.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from p2pdist.model.chunkmap import ChunkMap
from p2pdist.model.ids import MapId
from p2pdist.model.statements import MapHead

MAP_STUCK_S: Final = 3.0
"""An open map that stands still for this long gives way to its rival."""


class MapChoice:
    """Pure. Keeps one rival, the last that was heard of."""

    def __init__(self) -> None:
        self._rival: ChunkMap | None = None

    @property
    def rival(self) -> MapId | None:
        return self._rival.map_id if self._rival is not None else None

    def heard(
        self,
        head: MapHead,
        record: bytes,
        *,
        followed: ChunkMap | None,
        complete: bool,
        revoked: bool,
    ) -> ChunkMap | None:
        """Return the map to follow from now on, if this head changes that.

        `complete`: all of the blob is here under the one that is `followed`. `revoked`: the head's
        map was. Raise PeerFault for a head that is wrong in itself.
        """
        if followed is not None and head.map_id == followed.map_id:
            return None
        told = ChunkMap(head, record)
        if revoked:
            return None
        if followed is None:
            return told
        # A seal proves the size: no map of another one can be right.
        if not complete and (told.geometry == followed.geometry or not followed.sealed):
            self._rival = told
        return None

    def stuck(self, idle_s: float, *, complete: bool) -> ChunkMap | None:
        """Return the rival when the map that is followed brought nothing for `idle_s`, too long."""
        if complete or idle_s <= MAP_STUCK_S:
            return None
        rival, self._rival = self._rival, None
        return rival

    def keys_changed(self, knows: Callable[[bytes], bool]) -> None:
        """A rival that was signed by a key that is not believed any more is none."""
        if self._rival is not None and not self._rival.signed_by(knows):
            self._rival = None

    def revoked(self, map_id: MapId) -> None:
        """A map is never to be followed any more."""
        if self.rival == map_id:
            self._rival = None

    def settled(self) -> None:
        """A map was taken up; whoever stands against that has to say so again."""
        self._rival = None
