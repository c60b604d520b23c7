"""Reads the Secrets of helm's releases: it sends these, and no other object, as protobuf."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any, Final

MAGIC: Final = b"k8s\0"
_BYTES: Final = 2


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return value, at


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a message that are texts, bytes or messages, each with its number."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        size, at = _varint(message, at)
        if tag & 7 == _BYTES:
            yield tag >> 3, message[at : at + size]
            at += size


def _map(message: bytes, number: int) -> dict[str, bytes]:
    entries = [dict(_fields(value)) for key, value in _fields(message) if key == number]
    return {entry[1].decode(): entry.get(2, b"") for entry in entries}


def secret(sent: bytes) -> dict[str, Any]:
    """The Secret as JSON has it: the parts that helm asks for again."""
    raw = dict(_fields(sent.removeprefix(MAGIC)))[2]
    parts = dict(_fields(raw))
    metadata = dict(_fields(parts[1]))
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": metadata[1].decode(),
            "labels": {key: text.decode() for key, text in _map(parts[1], 11).items()},
        },
        "data": {key: base64.b64encode(held).decode() for key, held in _map(raw, 2).items()},
        "type": parts[3].decode(),
    }
