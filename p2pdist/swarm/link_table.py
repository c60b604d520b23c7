"""The live links of this host, and what its cores know of each."""

from __future__ import annotations

from p2pdist.exchange.link import Link
from p2pdist.model.handshake import DEMAND, TICKETS, WHO_ELSE
from p2pdist.swarm.core.link_state import LinkState
from p2pdist.swarm.core.tickets import LinkTickets


class LinkTable:
    """From a link to its state, and back."""

    def __init__(self) -> None:
        self._states: dict[Link, LinkState] = {}
        self._links: dict[LinkState, Link] = {}

    def state(self, link: Link) -> LinkState:
        """What is known of `link`; of one that has closed already, as good as nothing."""
        state = self._states.get(link)
        if state is None:
            proved = link.sealed and bool(link.session.features & TICKETS)
            state = LinkState(
                link.session.member,
                lambda: link.payload_received,
                speaks_demand=bool(link.session.features & DEMAND),
                speaks_who_else=bool(link.session.features & WHO_ELSE),
                tickets=LinkTickets() if proved else None,
                closed=link.closed,
            )
            if not link.closed:
                self._states[link] = state
                self._links[state] = link
        return state

    def link(self, state: LinkState) -> Link | None:
        """None: it has closed."""
        return self._links.get(state)

    def forget(self, link: Link) -> None:
        """It went down, and all who had something going on at it have heard so."""
        if (state := self._states.pop(link, None)) is not None:
            state.closed = True
            del self._links[state]
