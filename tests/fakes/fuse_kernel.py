"""The kernel's end of a FUSE connection: a pair of sockets stands in for /dev/fuse."""

from __future__ import annotations

import os
import socket
import struct
import threading
from dataclasses import dataclass
from typing import Final

from p2pdist.streaming.fuse.session import Session, SessionOptions
from p2pdist.streaming.ports import ROOT_NODE, FileTree

LOOKUP: Final = 1
FORGET: Final = 2
GETATTR: Final = 3
SETATTR: Final = 4
READLINK: Final = 5
OPEN: Final = 14
READ: Final = 15
STATFS: Final = 17
GETXATTR: Final = 22
LISTXATTR: Final = 23
INIT: Final = 26
OPENDIR: Final = 27
READDIR: Final = 28
INTERRUPT: Final = 36
BATCH_FORGET: Final = 42
READDIRPLUS: Final = 44

ANSWER_BYTES_MAX: Final = 1 << 21
WAIT_S: Final = 20.0
_ATTR: Final = struct.Struct("=QQQqqqIIIIIIIIII")


@dataclass(frozen=True)
class Answer:
    unique: int
    error: int
    """An errno; 0: success."""
    payload: bytes


@dataclass(frozen=True)
class Attr:
    node: int
    size: int
    blocks: int
    mtime: tuple[int, int]
    mode: int
    links: int
    uid: int
    gid: int
    device: int


def request(opcode: int, unique: int, node: int = ROOT_NODE, payload: bytes = b"") -> bytes:
    head = struct.pack("=IIQQIIIHH", 40 + len(payload), opcode, unique, node, 0, 0, 1, 0, 0)
    return head + payload


def read_payload(offset: int, size: int) -> bytes:
    return struct.pack("=QQIIQII", 0, offset, size, 0, 0, 0, 0)


def attr(data: bytes) -> Attr:
    ino, size, blocks, _, mtime, _, _, mtime_ns, _, mode, links, uid, gid, device, _, _ = (
        _ATTR.unpack_from(data)
    )
    return Attr(ino, size, blocks, (mtime, mtime_ns), mode, links, uid, gid, device)


@dataclass(frozen=True)
class DirectoryEntry:
    node: int
    kind: int
    name: bytes
    next_offset: int
    looked_up: Attr | None
    """With READDIRPLUS."""


def entries(data: bytes, *, plus: bool) -> list[DirectoryEntry]:
    found = []
    at = 0
    while at < len(data):
        looked_up = None
        if plus:
            (node,) = struct.unpack_from("=Q", data, at)
            looked_up = attr(data[at + 40 :]) if node else None
            at += 40 + _ATTR.size
        ino, offset, length, kind = struct.unpack_from("=QQII", data, at)
        name = data[at + 24 : at + 24 + length]
        found.append(DirectoryEntry(ino, kind, name, offset, looked_up))
        at += (24 + length + 7) // 8 * 8
    assert at == len(data)
    return found


class FuseKernel:
    """Asks a session, which runs in a thread; answers may be taken out of order."""

    def __init__(
        self, tree: FileTree, options: SessionOptions | None = None, *, takeover: bool = False
    ) -> None:
        self._socket, self._worker_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self._socket, self._worker_end):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ANSWER_BYTES_MAX)
        self._socket.settimeout(WAIT_S)
        self._early: dict[int, Answer] = {}
        self._unique = 0
        self.ended = threading.Event()
        session = Session(self._worker_end.fileno(), tree, options)

        def serve() -> None:
            session.serve(takeover=takeover)
            self.ended.set()

        self._thread = threading.Thread(target=serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        assert self.ended.wait(WAIT_S), "the session did not end with its connection"
        self._thread.join()
        self._socket.close()
        self._worker_end.close()

    def send(self, message: bytes) -> None:
        os.write(self._socket.fileno(), message)

    def post(self, opcode: int, node: int = ROOT_NODE, payload: bytes = b"") -> int:
        """Ask, and return the number to `answer` with."""
        self._unique += 2
        self.send(request(opcode, self._unique, node, payload))
        return self._unique

    def receive(self) -> Answer:
        message = self._socket.recv(ANSWER_BYTES_MAX)
        length, error, unique = struct.unpack_from("=IiQ", message)
        assert length == len(message)
        return Answer(unique, -error, message[16:])

    def answer(self, unique: int) -> Answer:
        while unique not in self._early:
            got = self.receive()
            assert got.unique not in self._early, "answered twice"
            self._early[got.unique] = got
        return self._early.pop(unique)

    def ask(self, opcode: int, node: int = ROOT_NODE, payload: bytes = b"") -> Answer:
        return self.answer(self.post(opcode, node, payload))
