"""What a blob in motion needs of the node that owns it."""

from __future__ import annotations

from typing import Protocol

from p2pdist.model.members import Place
from p2pdist.process.tasks import TaskOwner
from p2pdist.store.ports import BlobStore
from p2pdist.swarm.core.host import HostCore
from p2pdist.swarm.counters import NodeCounters
from p2pdist.swarm.link_table import LinkTable


class NodePorts(Protocol):
    @property
    def store(self) -> BlobStore: ...

    core: HostCore
    links: LinkTable
    counters: NodeCounters
    tasks: TaskOwner
    place: Place
    is_proxy: bool

    def carry_out(self) -> None:
        """Do what the core orders."""
        ...
