"""Tells two hosts with one id from one host that connects again.

Every process of ours makes up an *instance* when it starts and tells it in each hello. A host that
lost its network comes back as the same instance; one that was started anew comes as another, and
the one before is never seen again. So an instance that had to make way for another and then comes
back while that other one is there proves that both are alive: machines made from one image, or a
state directory that was copied.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from p2pdist.model.ids import HostId

INSTANCE_BYTES: Final = 16
HOSTS_MAX: Final = 1024
# Of one host, newest last. Of more clones than that not all are told at their first return.
INSTANCES_MAX: Final = 64


class CloneBook:
    """Pure: which instances had to make way. Full: the host that nothing happened to for longest is
    forgotten. An empty instance is that of an older version, which nothing can be told of."""

    def __init__(self) -> None:
        self._replaced: OrderedDict[HostId, tuple[bytes, ...]] = OrderedDict()

    def both_alive(self, host: HostId, instance: bytes, connected: bytes) -> bool:
        """`instance` comes while `connected` is there: two hosts go by the id of `host`."""
        return instance != connected and instance in self._replaced.get(host, ())

    def replaced(self, host: HostId, gone: bytes, by: bytes) -> None:
        """The connection of `gone` made way for one of `by`."""
        if not gone or not by or gone == by:
            return
        others = [known for known in self._replaced.pop(host, ()) if known != gone]
        self._replaced[host] = (*others, gone)[-INSTANCES_MAX:]
        while len(self._replaced) > HOSTS_MAX:
            self._replaced.popitem(last=False)
