"""Finds the index of a layer: which one it is a proxy signed, its bytes come like any blob's."""

from __future__ import annotations

import logging
from typing import Final

from p2pdist.errors import PeerFault, RegistryError
from p2pdist.model.ids import Digest
from p2pdist.model.layer_index import layer_index_key
from p2pdist.model.statements import TagStatement
from p2pdist.model.tags import NotBelieved, TagRecord, believe_tag, open_tag
from p2pdist.process import logs
from p2pdist.swarm.node import Node
from p2pdist.swarm.smalls import PROXY_ANSWER_S

log = logging.getLogger(__name__)

_ABSENT: Final = "there is no index of this layer (yet)"


class LayerIndexes:
    def __init__(self, node: Node) -> None:
        self._node = node

    async def find(self, layer: Digest) -> TagStatement:
        """Which blob is the index of `layer`; raise RegistryError (404) where nobody knows one."""
        told = await self._statement(layer)
        if told is None:
            raise RegistryError(404, "BLOB_UNKNOWN", _ABSENT)
        return told.statement

    async def _statement(self, layer: Digest) -> TagRecord | None:
        """What lies here, what a proxy says, what the swarm has heard: in this order. It never
        becomes old: the layer is named by its digest."""
        key = layer_index_key(layer)
        held = await self._node.smalls.held_statement(key)
        if held is not None or self._node.is_proxy:
            return held
        record = await self._node.proxy_links.ask_each(
            layer,
            lambda link: self._node.smalls.questions.statement(
                link, self._node.core.new_request_id(), key, PROXY_ANSWER_S
            ),
        )
        told = None
        if record is not None:
            try:
                told = open_tag(self._node.keyring, key, record)
                believe_tag(told, now_unix_s=self._node.health.sober_unix_s)
            except (PeerFault, NotBelieved) as error:
                logs.event(log, logging.WARNING, "index.not_believed", error=str(error))
                told = None
        told = told or await self._node.smalls.tag_statement(key, None)
        if told is not None:
            await self._node.smalls.keep_statement(key, told.record, index=True)
        return told
