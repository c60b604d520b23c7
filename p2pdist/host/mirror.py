"""What a daemon does for its own host's runtime: the mirror, and the images that came last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any

from aiohttp.typedefs import Handler

from p2pdist.exchange.upload import Upload
from p2pdist.host.runtime_pull import ContainerdPuller, DockerPuller, RuntimePuller
from p2pdist.model.members import Address
from p2pdist.model.recent_pulls import RecentPulls
from p2pdist.process.listening import HttpServer
from p2pdist.registry.ports import RegistryBackend
from p2pdist.registry.serving.endpoint import RegistryEndpoint
from p2pdist.registry.serving.pull import PullRecord
from p2pdist.registry.serving.pull_metrics import PullMetrics
from p2pdist.registry.serving.refused import RefusedRequests
from p2pdist.settings import Settings


class HostMirror:
    """`/v2/` at `peer.listen`, over the backend of whichever daemon serves this host."""

    def __init__(
        self,
        settings: Settings,
        backend: RegistryBackend,
        *,
        registries: Collection[str],
        metrics: PullMetrics,
        refused: RefusedRequests,
        upload: Upload | None,
        renew: Callable[[], Awaitable[None]] | None = None,
        by_caller: Callable[[], bool] = lambda: False,
        beside: Mapping[str, Handler] | None = None,
    ) -> None:
        """`registries`, `upload`, `renew`, `by_caller` and `beside`: as `RegistryEndpoint`'s.
        `metrics` and `refused` may be shared with another endpoint of the daemon."""
        self._recent = RecentPulls()
        endpoint = RegistryEndpoint(
            backend,
            on_done=partial(self._note, metrics),
            upstreams=registries,
            renew=renew,
            default_upstream=settings.peer.default_upstream,
            upload=upload,
            refused=refused,
            by_caller=by_caller,
            beside=beside,
        )
        names = settings.host.http_names
        self.server = HttpServer(settings.peer.listen, endpoint.app(), names=names)
        self._address = settings.peer.listen

    @property
    def address(self) -> Address:
        """Where it listens, once it does."""
        return self._address

    async def start(self) -> None:
        """Raises OSError."""
        self._address = await self.server.start()

    def status(self) -> dict[str, Any]:
        now_s = asyncio.get_running_loop().time()
        return {"mirror": str(self._address), "recent_pulls": self._recent.status(now_s)}

    def _note(self, metrics: PullMetrics, record: PullRecord) -> None:
        metrics.note(record)
        now_s = asyncio.get_running_loop().time()
        tag = record.reference if record.kind == "manifest" and ":" not in record.reference else ""
        if tag and record.head and record.status == HTTPStatus.OK:
            self._recent.asked(str(record.name), tag, now_s)
        if not record.sent_bytes:  # a HEAD, or a refusal
            return
        self._recent.note(
            str(record.name),
            tag,
            record.bytes_by_source,
            started_s=now_s - record.duration_s,
            ended_s=now_s,
            cut=record.outcome == "cut",
        )


def runtime_puller(settings: Settings) -> RuntimePuller | None:
    """The runtime that jobs may pull images into; None: the operator allows none."""
    own = settings.peer
    match own.into_runtime:
        case "docker":
            return DockerPuller(own.runtime_socket)
        case "containerd":
            return ContainerdPuller(
                own.runtime_socket, own.runtime_namespace, own.runtime_hosts_dir
            )
        case _:
            return None


def admitted_runtimes(settings: Settings) -> list[str]:
    """As a host describes itself to its tracker."""
    return [settings.peer.into_runtime] if settings.peer.into_runtime else []
