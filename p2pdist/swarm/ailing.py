"""What a node tells its `Health`: the conditions of this moment, and what handshakes show."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p2pdist.exchange.transport import Watchers
from p2pdist.model.handshake import Session
from p2pdist.model.health import Reason
from p2pdist.model.members import Role
from p2pdist.process.health import PROXY
from p2pdist.swarm.node import Node
from p2pdist.swarm.refusing import RefusalLog


def conditions(node: Node, trackers: Sequence[str], unreachable: str | None) -> dict[Reason, str]:
    """What holds now.

    `trackers` are those configured; `unreachable`: why nobody can dial this host.
    """
    found = {}
    if (trouble := node.store_trouble()) is not None:
        found[trouble] = "what comes in passes through unstored"
    if node.proxy_links.all_refuse:
        found[Reason.PROXIES_REFUSE] = "every proxy keeps no link with this host for now"
    if hanging := node.proxy_links.answering.book.hanging:
        found[Reason.PROXY_HUNG] = f"{', '.join(hanging)} answers nothing and is asked last"
    if trackers and not node.tracker.connected:
        found[Reason.TRACKER_AWAY] = f"none of {', '.join(trackers)} is reached"
    if unreachable is not None:
        found[Reason.UNREACHABLE] = unreachable
    if node.tracker.connected and (refused := node.tracker.unnamed):
        found[Reason.ADDRESS_REFUSED] = f"the tracker tells nobody of this host: {refused}"
    return found


def watchers_of(node: Node, refused: RefusalLog, id_in_use: Callable[[str], None]) -> Watchers:
    """What the exchange's handshakes show goes to the node's health."""
    health, strangers = node.health, 0

    def stranger(address: str) -> None:
        nonlocal strangers
        strangers += 1
        detail = f"{strangers} dialled with another cluster secret so far, the last one from"
        health.happened(Reason.STRANGERS, "", f"{detail} {address}")

    def clock(session: Session, asked_s: float, answered_s: float) -> None:
        member = session.member
        if member.role is not Role.PROXY:
            return
        name = node.proxy_links.name_of(member.host_id) or f"the proxy {member.host_id[:12]}"
        health.heard_clock(PROXY, name, session.unix_ms, asked_s=asked_s, answered_s=answered_s)

    return Watchers(
        unix_ms=lambda: health.unix_ms,
        refused=refused.note,
        stranger=stranger,
        clock=clock,
        id_in_use=id_in_use,
    )
