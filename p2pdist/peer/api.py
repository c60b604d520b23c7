"""What other components may use of the peer: the node, its blobs, and their readers."""

from p2pdist.peer.active import ActiveBlob
from p2pdist.peer.assembly import (
    About,
    NodeOptions,
    RunningNode,
    node_samples,
    node_status,
    running_node,
)
from p2pdist.peer.core.bulk import bulk_bucket
from p2pdist.peer.counters import OTHER_SIZE, UPSTREAM, WAN
from p2pdist.peer.fallback import OutsideBody, OutsideSource, stream_checked
from p2pdist.peer.host_mirror import HostMirror, admitted_runtimes, runtime_puller
from p2pdist.peer.layer_indexes import LayerIndexes
from p2pdist.peer.node import Node
from p2pdist.peer.outside import DirectSource, NotSmall, WatchedSource, read_single
from p2pdist.peer.prewarming import Prewarmer
from p2pdist.peer.reader import SwarmReader, WholeBlob
from p2pdist.peer.server import Authority
from p2pdist.peer.smalls import SmallAnswer

__all__ = [
    "OTHER_SIZE",
    "UPSTREAM",
    "WAN",
    "About",
    "ActiveBlob",
    "Authority",
    "DirectSource",
    "HostMirror",
    "LayerIndexes",
    "Node",
    "NodeOptions",
    "NotSmall",
    "OutsideBody",
    "OutsideSource",
    "Prewarmer",
    "RunningNode",
    "SmallAnswer",
    "SwarmReader",
    "WatchedSource",
    "WholeBlob",
    "admitted_runtimes",
    "bulk_bucket",
    "node_samples",
    "node_status",
    "read_single",
    "running_node",
    "runtime_puller",
    "stream_checked",
]
