"""containerd's snapshots service over a `Snapshotter`, and what its errors are called there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final

import grpc

from p2pdist.errors import P2pdistError, StoreError
from p2pdist.process import logs
from p2pdist.streaming.snapshotter import wire
from p2pdist.streaming.snapshotter.core.filters import BadFilter
from p2pdist.streaming.snapshotter.core.mounts import Mount
from p2pdist.streaming.snapshotter.core.snapshots import (
    Kind,
    NoSuchSnapshot,
    NotPossible,
    Snapshot,
    SnapshotExists,
    SnapshotInUse,
)
from p2pdist.streaming.snapshotter.snapshotter import Broken, Snapshotter

log = logging.getLogger(__name__)

PAGE: Final = 100
"""Snapshots in one message of a list, as containerd sends them itself."""
_NS: Final = 1_000_000_000

# containerd's `errdefs` read from the codes what has happened (`contrib/snapshotservice`).
_CODES: Final[dict[type[Exception], grpc.StatusCode]] = {
    SnapshotExists: grpc.StatusCode.ALREADY_EXISTS,
    NoSuchSnapshot: grpc.StatusCode.NOT_FOUND,
    SnapshotInUse: grpc.StatusCode.FAILED_PRECONDITION,
    NotPossible: grpc.StatusCode.INVALID_ARGUMENT,
    BadFilter: grpc.StatusCode.INVALID_ARGUMENT,
    Broken: grpc.StatusCode.UNAVAILABLE,
}

_Context = Any
"""`grpc.aio.ServicerContext`, which is generic at type checking only."""


def handler(snapshotter: Snapshotter) -> grpc.GenericRpcHandler:
    service = _Service(snapshotter)
    methods: dict[str, Callable[..., Any]] = {
        "Prepare": service.prepare,
        "View": service.view,
        "Mounts": service.mounts,
        "Commit": service.commit,
        "Remove": service.remove,
        "Stat": service.stat,
        "Update": service.update,
        "List": service.list,
        "Usage": service.usage,
        "Cleanup": service.cleanup,
    }
    handlers = {}
    for name, (request, answer) in wire.METHODS.items():
        codec = request.FromString, answer.SerializeToString
        if name == "List":
            work = _streaming(methods[name])
            handlers[name] = grpc.unary_stream_rpc_method_handler(work, *codec)
        else:
            handlers[name] = grpc.unary_unary_rpc_method_handler(_answering(methods[name]), *codec)
    return grpc.method_handlers_generic_handler(wire.SERVICE, handlers)


def _answering(work: Callable[[Any], Awaitable[Any]]) -> Callable[[Any, _Context], Awaitable[Any]]:
    async def answer(request: Any, context: _Context) -> Any:
        try:
            return await work(request)
        except Exception as error:  # noqa: BLE001 - whatever is wrong here, an engine is told so
            await context.abort(*_told(error))

    return answer


def _streaming(
    work: Callable[[Any], AsyncIterator[Any]],
) -> Callable[[Any, _Context], AsyncIterator[Any]]:
    async def answer(request: Any, context: _Context) -> AsyncIterator[Any]:
        try:
            async for message in work(request):
                yield message
        except Exception as error:  # noqa: BLE001 - as above
            await context.abort(*_told(error))

    return answer


def _told(error: Exception) -> tuple[grpc.StatusCode, str]:
    code = _CODES.get(type(error))
    if code is not None:
        return code, str(error)
    if isinstance(error, StoreError) and error.full:
        return grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
    expected = isinstance(error, P2pdistError)
    logs.event(
        log, logging.ERROR, "snapshotter.failed",
        error=str(error) or type(error).__name__, exc_info=None if expected else error,
    )  # fmt: skip
    return grpc.StatusCode.INTERNAL, str(error) or type(error).__name__


class _Service:
    """One method for each of the service's, from request to answer."""

    def __init__(self, snapshotter: Snapshotter) -> None:
        self._snapshotter = snapshotter

    async def prepare(self, asked: Any) -> Any:
        return await self._made(asked, Kind.ACTIVE)

    async def view(self, asked: Any) -> Any:
        return await self._made(asked, Kind.VIEW)

    async def _made(self, asked: Any, kind: Kind) -> Any:
        mounts = await self._snapshotter.prepare(asked.key, asked.parent, kind, dict(asked.labels))
        return _mounts(mounts)

    async def mounts(self, asked: Any) -> Any:
        return _mounts(await self._snapshotter.mounts(asked.key))

    async def commit(self, asked: Any) -> Any:
        await self._snapshotter.commit(asked.name, asked.key, dict(asked.labels))
        return wire.Empty()

    async def remove(self, asked: Any) -> Any:
        await self._snapshotter.remove(asked.key)
        return wire.Empty()

    async def stat(self, asked: Any) -> Any:
        return wire.InfoResponse(info=_info(await self._snapshotter.get(asked.key)))

    async def update(self, asked: Any) -> Any:
        changed = await self._snapshotter.relabel(
            asked.info.name, dict(asked.info.labels), list(asked.update_mask.paths)
        )
        return wire.InfoResponse(info=_info(changed))

    async def list(self, asked: Any) -> AsyncIterator[Any]:
        found = await self._snapshotter.find(list(asked.filters))
        for start in range(0, len(found), PAGE):
            page = [_info(snapshot) for snapshot in found[start : start + PAGE]]
            yield wire.ListResponse(info=page)

    async def usage(self, asked: Any) -> Any:
        usage = await self._snapshotter.usage(asked.key)
        return wire.UsageResponse(size=usage.size_bytes, inodes=usage.inodes)

    async def cleanup(self, asked: Any) -> Any:
        await self._snapshotter.clean()
        return wire.Empty()


def _mounts(mounts: list[Mount]) -> Any:
    return wire.MountsResponse(
        mounts=[
            wire.Mount(type=mount.kind, source=mount.source, options=mount.options)
            for mount in mounts
        ]
    )


def _info(snapshot: Snapshot) -> Any:
    return wire.Info(
        name=snapshot.name,
        parent=snapshot.parent,
        kind=int(snapshot.kind),
        created_at=_time(snapshot.created_ns),
        updated_at=_time(snapshot.updated_ns),
        labels=dict(snapshot.labels),
    )


def _time(ns: int) -> Any:
    return wire.Timestamp(seconds=ns // _NS, nanos=ns % _NS)
