"""Finds the index of a layer: which one it is a proxy signed, its bytes come like any blob's."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Final

from p2pdist.errors import BlobFailed, PeerFault, RegistryError
from p2pdist.model.ids import Digest
from p2pdist.model.layer_index import INDEX_BYTES_MAX, INDEX_MEDIA_TYPE, layer_index_key
from p2pdist.model.tags import NotBelieved, TagRecord, believe_tag, open_tag
from p2pdist.oci.names import ImageName
from p2pdist.peer.node import Node
from p2pdist.peer.smalls import PROXY_ANSWER_S
from p2pdist.runtime import logs
from p2pdist.runtime.serving import BlobSource, FileSpan, Manifest

log = logging.getLogger(__name__)

OpenBlob = Callable[[ImageName, Digest, int], Awaitable[BlobSource]]
"""Opens a blob of a name, which has so many bytes. Raises RegistryError."""

_ABSENT: Final = "there is no index of this layer (yet)"


class LayerIndexes:
    def __init__(self, node: Node, open_blob: OpenBlob) -> None:
        self._node = node
        self._open_blob = open_blob

    async def find(self, name: ImageName, layer: Digest) -> Manifest:
        """Return the index of `layer`; raise RegistryError (404) where none can be had."""
        told = await self._statement(layer)
        if told is None:
            raise RegistryError(404, "BLOB_UNKNOWN", _ABSENT)
        statement = told.statement
        if statement.size_bytes > INDEX_BYTES_MAX:
            raise RegistryError(404, "BLOB_UNKNOWN", f"an index of {statement.size_bytes} bytes")
        source = await self._open_blob(name, statement.digest, statement.size_bytes)
        try:
            body = await read_whole(source)
        finally:
            source.close()
        return Manifest(statement.digest, INDEX_MEDIA_TYPE, body)

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
                link, self._node.requests.new_id(), key, PROXY_ANSWER_S
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
            await self._node.smalls.keep_statement(key, told.record)
        return told


async def read_whole(source: BlobSource) -> bytes:
    """All bytes of an open blob that fits into memory. Raises RegistryError."""
    body = bytearray()
    try:
        async for piece in source.read(0, source.size_bytes):
            if isinstance(piece, FileSpan):
                body += await asyncio.to_thread(_read, piece)
            else:
                body += piece
    except BlobFailed as error:
        raise RegistryError(404, "BLOB_UNKNOWN", str(error)) from None
    if len(body) != source.size_bytes:
        raise RegistryError(404, "BLOB_UNKNOWN", "its bytes did not come")
    return bytes(body)


def _read(span: FileSpan) -> bytes:
    data = os.pread(span.fileno, span.length, span.offset)
    if len(data) != span.length:
        raise BlobFailed("the file is shorter than it was")
    return data
