"""What the tracker counts; read at scrape time, never labelled by key or host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class TrackerCounters:
    connections_total: int = 0
    announces_total: int = 0
    deltas_total: int = 0
    handouts_total: int = 0
    handout_members_total: int = 0
    handouts_empty_total: int = 0
    """Joins that got no neighbour at all."""
    leases_granted_total: int = 0
    leases_renewed_total: int = 0
    leases_refused_total: int = 0
    leases_taken_over_total: int = 0
    """Grants after the lease of another host ran out or its host was lost."""
    revocations_total: int = 0
    revocations_refused_total: int = 0
    """Records that none of our proxies signed."""
    hosts_refused_total: int = 0
    host_ids_in_use_total: int = 0
    """Hosts that were told that another one has their id."""
    hosts_unnamed_total: int = 0
    """Hosts that came in and proved none of the addresses that they announced."""
    hosts_expired_total: int = 0
    """Hosts whose offers vanished because they stayed away or silent."""
    keys_refused_total: int = 0
    """Offers and interests beyond what one host or the tracker may hold."""
    strangers_total: int = 0
    """Handshakes with another cluster secret."""
    protocol_faults_total: int = 0
    """Connections closed for a failed handshake or a message that makes no sense."""
