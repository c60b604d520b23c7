"""What Prometheus reads of a daemon."""

from __future__ import annotations

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from p2pdist.model.members import Address

Series = tuple[str, frozenset[tuple[str, str]]]


def series(name: str, **labels: str) -> Series:
    return name, frozenset(labels.items())


async def scraped(client: aiohttp.ClientSession, admin: Address) -> dict[Series, float]:
    """All series with their values; the page is made once a second at most."""
    async with client.get(f"http://{admin}/metrics", raise_for_status=True) as answer:
        text = await answer.text()
    families = text_string_to_metric_families(text)
    return {series(s.name, **s.labels): s.value for family in families for s in family.samples}


def total(page: dict[Series, float], name: str, **labels: str) -> float:
    """The sum of the series of this name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (other, has), value in page.items() if other == name and wanted <= has)
