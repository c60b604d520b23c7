"""How much of what is shown is on this host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from p2pdist.model.ids import Digest, digest_of
from p2pdist.streaming.snapshotter.inventory import Inventory, ShownLayer, Where, tally
from p2pdist.streaming.snapshotter.layer_files import LayerPlan

APP, WEB = "docker.io/library/app", "docker.io/library/web"


def test_layers_and_bytes_are_told_by_where_they_are_and_by_image() -> None:
    told = tally(
        [
            ShownLayer(APP, 100, Where.FILES),
            ShownLayer(APP, 30, Where.ELSEWHERE),
            ShownLayer(WEB, 5, Where.HERE),
        ]
    )

    assert told.layers == {Where.FILES: 1, Where.ELSEWHERE: 1, Where.HERE: 1}
    assert told.nbytes == {Where.FILES: 100, Where.ELSEWHERE: 30, Where.HERE: 5}
    assert (told.images[APP].layers, told.images[APP].size_bytes) == (2, 130)
    assert (told.images[APP].here_bytes, told.images[WEB].here_bytes) == (100, 5)


def plan(name: str, size: int, *, whole: bool = False) -> LayerPlan:
    return LayerPlan("docker.io", f"library/{name}", digest_of(name.encode()), [], whole, [], size)


async def test_where_a_layer_is_changes_as_it_comes() -> None:
    plans = [(1, plan("app", 10)), (2, plan("web", 20, whole=True)), (3, plan("db", 40))]
    plain, held = {3}, set[Digest]()
    looks = asyncio.Event()

    def plans_now() -> list[tuple[int, LayerPlan]]:
        loop.call_soon_threadsafe(looks.set)
        return plans

    loop = asyncio.get_running_loop()
    inventory = Inventory(plans_now, plain.__contains__, lambda: held, look_s=0.001)
    running = loop.create_task(inventory.run())
    try:
        while inventory.tally.nbytes != {Where.ELSEWHERE: 10, Where.HERE: 20, Where.FILES: 40}:
            await looks.wait()
            looks.clear()
        held.add(plans[0][1].blob)
        while inventory.tally.nbytes != {Where.HERE: 30, Where.FILES: 40}:
            await looks.wait()
            looks.clear()
    finally:
        running.cancel()


async def test_a_look_that_fails_is_not_the_last_one() -> None:
    tries: Iterator[OSError | list[tuple[int, LayerPlan]]] = iter(
        [OSError("disk"), [(1, plan("app", 10))]]
    )

    def plans_now() -> list[tuple[int, LayerPlan]]:
        found = next(tries, [(1, plan("app", 10))])
        if isinstance(found, OSError):
            raise found
        return found

    inventory = Inventory(plans_now, lambda _: False, set, look_s=0.001)
    running = asyncio.get_running_loop().create_task(inventory.run())
    try:
        async with asyncio.timeout(20):
            while not inventory.tally.images:  # noqa: ASYNC110  # a thread looks
                await asyncio.sleep(0.001)
    finally:
        running.cancel()
