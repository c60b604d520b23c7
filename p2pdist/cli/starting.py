"""What the verbs that run daemons do around them: settings, logs, and whose address is taken."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from p2pdist.cli.failures import CommandError, explain_listening
from p2pdist.cli.options import load_from_flags
from p2pdist.errors import CannotListen
from p2pdist.model.members import Address
from p2pdist.settings import Leaf, Settings, leaves_of


def started(role: str, config: Path | None, flags: dict[str, Any]) -> Settings:
    """Load the settings of a daemon and set its logs up."""
    from p2pdist.process import logs

    settings = load_from_flags(config, flags).settings
    logs.set_up(settings.log.level, settings.log.format, role=role)
    return settings


@contextlib.contextmanager
def naming_addresses(settings: Settings, *sections: str) -> Iterator[None]:
    """Say of an address that cannot be listened on which setting of `sections` names it."""
    try:
        yield
    except CannotListen as error:
        address = Address(error.host, error.port)
        leaves = listeners_at(address, settings, sections)
        if not leaves:
            raise
        what = f"{' and '.join(leaf.name for leaf in leaves)} = {address}"
        code, message, hint = explain_listening(error, what, leaves[-1].flag)
        raise CommandError(message, code, hint) from error


def listeners_at(address: Address, settings: Settings, sections: Sequence[str]) -> list[Leaf]:
    """The settings of `sections` that have a daemon listen at `address`."""
    return [
        leaf
        for section in sections
        for leaf in leaves_of(section, type(getattr(settings, section)))
        if leaf.key.endswith("listen") and getattr(getattr(settings, section), leaf.key) == address
    ]
