"""The socket that containerd asks: over a real one, with a table of layers that need no mount."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from p2pdist.errors import ConfigError
from p2pdist.model.ids import Digest, digest_of
from p2pdist.model.members import Address
from p2pdist.oci.layered_image import layered_image
from p2pdist.oci.names import ImageName
from p2pdist.settings import Host, Settings
from p2pdist.settings import Snapshotter as SnapshotterSection
from p2pdist.streaming.core.index import encode_index
from p2pdist.streaming.snapshotter import daemon, snapshotter, wire
from p2pdist.streaming.snapshotter.daemon import running_snapshotter
from p2pdist.streaming.snapshotter.images import Declined, LazyImages
from p2pdist.streaming.snapshotter.layers_mount import LayersMount
from p2pdist.streaming.snapshotter.opened import OpenedLayer
from p2pdist.streaming.snapshotter.snapshotter import TARGET
from tests.fakes.layers_mount import Mounted
from tests.streaming.archives import archive, directory, file, gzipped, index_of

NAME = ImageName("docker.io", "library/app")
ARCHIVES = [archive(directory("d"), file("d/low")), archive(file("d/high"))]
LAYERS = [gzipped(plain) for plain in ARCHIVES]
IMAGE = layered_image(
    NAME,
    [(digest_of(layer), len(layer)) for layer in LAYERS],
    [digest_of(plain) for plain in ARCHIVES],
)
LOW, HIGH = (layer.chain_id for layer in IMAGE.layers)


class Socket:
    """A client of the service."""

    def __init__(self, path: Path) -> None:
        self._channel = grpc.aio.insecure_channel(f"unix:{path}")

    async def close(self) -> None:
        await self._channel.close()

    async def ask(self, method: str, **fields: Any) -> Any:
        request, answer = wire.METHODS[method]
        call = self._channel.unary_unary(
            f"/{wire.SERVICE}/{method}", request.SerializeToString, answer.FromString
        )
        return await call(request(**fields), timeout=20)

    async def list(self, *filters: str) -> list[Any]:
        request, answer = wire.METHODS["List"]
        call = self._channel.unary_stream(
            f"/{wire.SERVICE}/List", request.SerializeToString, answer.FromString
        )
        pages = [page async for page in call(request(filters=filters), timeout=20)]
        return [info for page in pages for info in page.info]

    async def refused(self, method: str, **fields: Any) -> grpc.StatusCode:
        with pytest.raises(grpc.aio.AioRpcError) as told:
            await self.ask(method, **fields)
        code: grpc.StatusCode = told.value.code()
        return code


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    section = SnapshotterSection(
        socket=tmp_path / "run" / "s.sock",
        mirror="http://127.0.0.1:1",
        admin_listen=Address("127.0.0.1", 0),
    )
    return replace(Settings(), host=Host(state_dir=tmp_path / "state"), snapshotter=section)


@pytest.fixture
def lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[Digest, OpenedLayer]:
    """What the mirror has, by chain ID."""
    found: dict[Digest, OpenedLayer] = {}

    async def opened(self: LazyImages, chain: Digest, labels: object) -> OpenedLayer:
        if chain not in found:
            raise Declined("not today")
        return found[chain]

    monkeypatch.setattr(LazyImages, "opened", opened)
    monkeypatch.setattr(daemon, "LayersMount", Mounted)
    monkeypatch.setattr(Mounted, "broken", False)
    for number, layer in enumerate(IMAGE.layers):
        index = tmp_path / f"{number}.index"
        index.write_bytes(encode_index(index_of(LAYERS[number])))
        found[layer.chain_id] = OpenedLayer(NAME, layer, index, None, len(ARCHIVES[number]))
    return found


@pytest.fixture
async def socket(settings: Settings, lazy: dict[Digest, OpenedLayer]) -> AsyncIterator[Socket]:
    async with running_snapshotter(settings):
        client = Socket(settings.snapshotter.socket)
        yield client
        await client.close()


async def show(socket: Socket, name: str, chain: Digest, parent: str = "") -> grpc.StatusCode:
    """Ask for a layer as containerd's unpacker does."""
    return await socket.refused(
        "Prepare", snapshotter="p2pdist", key=name, parent=parent, labels={TARGET: chain}
    )


async def test_a_layer_that_is_shown_is_told_of_as_containerd_looks_for_it(
    socket: Socket,
) -> None:
    assert await show(socket, "k8s.io/1/extract", LOW) is grpc.StatusCode.ALREADY_EXISTS
    assert (
        await show(socket, "k8s.io/2/extract", HIGH, "k8s.io/1/extract")
        is grpc.StatusCode.ALREADY_EXISTS
    )

    (found,) = await socket.list(f'labels."{TARGET}"=={HIGH},parent=="k8s.io/1/extract"')
    assert (found.name, found.parent, found.kind) == ("k8s.io/2/extract", "k8s.io/1/extract", 3)
    assert dict(found.labels) == {TARGET: HIGH}
    assert found.created_at.seconds > 1_700_000_000
    stat = await socket.ask("Stat", key="k8s.io/1/extract")
    assert stat.info.labels[TARGET] == LOW


async def test_a_layer_is_read_as_soon_as_it_is_shown(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: queue.SimpleQueue[int] = queue.SimpleQueue()
    monkeypatch.setattr(Mounted, "have_read", lambda self, number: read.put(number))

    await show(socket, "low", LOW)
    await show(socket, "high", HIGH, "low")
    await show(socket, "again", HIGH, "low")

    assert [await asyncio.to_thread(read.get, timeout=20) for _ in range(2)] == [1, 2]
    assert read.empty()


async def test_a_layer_that_is_read_for_long_holds_up_no_pull(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(Mounted, "have_read", lambda self, number: go_on.wait(60))
    try:
        await show(socket, "low", LOW)
        assert await show(socket, "high", HIGH, "low") is grpc.StatusCode.ALREADY_EXISTS
    finally:
        go_on.set()


def test_a_layer_that_cannot_be_read_is_for_its_readers_to_tell(tmp_path: Path) -> None:
    LayersMount(tmp_path, "http://127.0.0.1:1").have_read(1)


async def test_a_layer_of_two_namespaces_is_two_snapshots(socket: Socket) -> None:
    """Each is found by the parent that its namespace knows."""
    await show(socket, "k8s.io/1/a", LOW)
    await show(socket, "other/1/a", LOW, "")
    await show(socket, "k8s.io/2/b", HIGH, "k8s.io/1/a")

    assert [info.name for info in await socket.list()] == ["k8s.io/1/a", "k8s.io/2/b"]


async def test_no_layer_is_shown_in_a_namespace_that_wants_whole_images(socket: Socket) -> None:
    """Docker's, until it has the blobs: it saves an image without them as if it were whole."""
    await show(socket, "k8s.io/1/a", LOW)

    answer = await socket.ask("Prepare", key="moby/1/extract", labels={TARGET: LOW})

    assert [mount.type for mount in answer.mounts] == ["bind"]
    assert [info.name for info in await socket.list()] == ["k8s.io/1/a", "moby/1/extract"]


async def test_a_layer_that_is_declined_is_prepared_to_be_unpacked(
    socket: Socket, lazy: dict[Digest, OpenedLayer]
) -> None:
    lazy.clear()

    answer = await socket.ask("Prepare", key="k8s.io/1/extract", labels={TARGET: LOW})

    assert [mount.type for mount in answer.mounts] == ["bind"]
    await socket.ask("Commit", name="k8s.io/2/low", key="k8s.io/1/extract", labels={TARGET: LOW})
    (found,) = await socket.list()
    assert (found.name, found.kind) == ("k8s.io/2/low", 3)


async def test_a_layer_above_an_unpacked_one_is_shown_if_it_says_all_itself(
    socket: Socket, lazy: dict[Digest, OpenedLayer]
) -> None:
    """What `d` is, only the layer below says."""
    high = lazy.pop(HIGH)
    await socket.ask("Prepare", key="key", labels={})
    await socket.ask("Commit", name="low", key="key")
    lazy[HIGH] = high
    answer = await socket.ask("Prepare", key="k", parent="low", labels={TARGET: HIGH})
    assert answer.mounts[0].type == "overlay"

    assert await show(socket, "k2", LOW, "low") is grpc.StatusCode.ALREADY_EXISTS


async def test_containers_and_what_is_made_of_them(socket: Socket) -> None:
    """As Docker prepares one: `-init` above the image, the container above that."""
    await show(socket, "low", LOW)
    await socket.ask("Prepare", key="c1-init", parent="low", labels={"a": "b"})
    await socket.ask("Commit", name="c1-init-done", key="c1-init")
    answer = await socket.ask("Prepare", key="c1", parent="c1-init-done")

    lower = answer.mounts[0].options[-1]
    assert lower.endswith("/mnt/1")
    assert lower.startswith("lowerdir=")
    assert "/snapshots/2/fs:" in lower
    assert (await socket.ask("Mounts", key="c1")) == answer
    assert await socket.refused("Remove", key="low") is grpc.StatusCode.FAILED_PRECONDITION
    usage = await socket.ask("Usage", key="c1")
    assert usage.inodes == 0
    view = await socket.ask("View", key="look", parent="low")
    assert (view.mounts[0].type, list(view.mounts[0].options)) == ("bind", ["ro", "rbind"])


async def test_labels_are_changed_one_by_one_or_all(socket: Socket) -> None:
    await socket.ask("Prepare", key="key", labels={"a": "1", "b": "2"})

    one = await socket.ask(
        "Update",
        info={"name": "key", "labels": {"a": "9"}},
        update_mask={"paths": ["labels.a"]},
    )
    assert dict(one.info.labels) == {"a": "9", "b": "2"}
    all_ = await socket.ask("Update", info={"name": "key", "labels": {"c": "3"}})
    assert dict(all_.info.labels) == {"c": "3"}
    assert (
        await socket.refused("Update", info={"name": "key"}, update_mask={"paths": ["parent"]})
        is grpc.StatusCode.INVALID_ARGUMENT
    )


async def test_what_an_engine_is_told_of_its_errors(socket: Socket) -> None:
    await socket.ask("Prepare", key="key")
    codes = grpc.StatusCode

    assert await socket.refused("Prepare", key="key") is codes.ALREADY_EXISTS
    assert await socket.refused("Prepare", key="k", parent="none") is codes.NOT_FOUND
    assert await socket.refused("Prepare", key="k", parent="key") is codes.INVALID_ARGUMENT
    assert await socket.refused("Prepare", key="") is codes.INVALID_ARGUMENT
    for method in ("Mounts", "Remove", "Stat", "Usage"):
        assert await socket.refused(method, key="none") is codes.NOT_FOUND
    assert await socket.refused("Commit", name="n", key="none") is codes.NOT_FOUND
    assert await socket.refused("Update", info={"name": "none"}) is codes.NOT_FOUND
    with pytest.raises(grpc.aio.AioRpcError) as told:
        await socket.list("==")
    assert told.value.code() is codes.INVALID_ARGUMENT


async def test_a_container_whose_layers_cannot_be_shown_is_refused(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await show(socket, "low", LOW)
    monkeypatch.setattr(Mounted, "broken", True)

    assert await socket.refused("Prepare", key="c", parent="low") is grpc.StatusCode.UNAVAILABLE
    await socket.ask("Prepare", key="other")
    monkeypatch.setattr(Mounted, "broken", False)
    assert (await socket.ask("Prepare", key="c", parent="low")).mounts, "asked for again"
    monkeypatch.setattr(Mounted, "broken", True)
    assert await socket.refused("Mounts", key="c") is grpc.StatusCode.UNAVAILABLE
    monkeypatch.setattr(Mounted, "broken", False)
    assert (await socket.ask("Mounts", key="c")).mounts


async def test_a_list_of_many_comes_in_pages(socket: Socket) -> None:
    for number in range(250):
        await socket.ask("Prepare", key=f"k{number}")

    assert len(await socket.list()) == 250
    assert len(await socket.list("name==k7")) == 1


async def test_what_is_removed_is_gone_from_the_disk(socket: Socket, settings: Settings) -> None:
    await show(socket, "low", LOW)
    await socket.ask("Remove", key="low")
    await socket.ask("Cleanup")

    root = settings.host.state_dir / "snapshotter"
    assert [list((root / name).iterdir()) for name in ("layers", "removed")] == [[], []]


async def test_cleanup_takes_what_was_removed_and_leaves_what_is_used(
    settings: Settings, lazy: dict[Digest, OpenedLayer]
) -> None:
    """After a restart, too. What nobody was about to take away shows that this call does it."""
    root = settings.host.state_dir / "snapshotter"

    def files() -> list[str]:
        return sorted(str(path.relative_to(root)) for path in root.glob("*/*/*"))

    def leave(name: str) -> None:
        (root / "removed" / name / "fs").mkdir(parents=True)
        (root / "removed" / name / "fs" / "file").write_bytes(b"of a removed snapshot")

    async with running_snapshotter(settings):
        client = Socket(settings.snapshotter.socket)
        await show(client, "low", LOW)
        await client.ask("Prepare", key="container", parent="low")
        await client.ask("Prepare", key="old")
        (root / "snapshots" / "2" / "fs" / "written").write_bytes(b"by the container")
        kept = ["layers/1/index", "layers/1/layer.json", "snapshots/2/fs", "snapshots/2/work"]
        assert files() == [*kept, "snapshots/3/fs", "snapshots/3/work"]

        assert await client.refused("Remove", key="low") is grpc.StatusCode.FAILED_PRECONDITION
        await client.ask("Remove", key="old")
        leave("by hand")
        await client.ask("Cleanup")
        assert files() == kept
        leave("before a restart")
        await client.close()

    async with running_snapshotter(settings):
        client = Socket(settings.snapshotter.socket)
        assert files() == kept, "what was left goes when it begins"
        leave("after a restart")
        await client.ask("Cleanup")
        assert files() == kept
        assert (root / "snapshots" / "2" / "fs" / "written").read_bytes() == b"by the container"
        for name in ("container", "low"):
            await client.ask("Remove", key=name)
        await client.ask("Cleanup")
        assert files() == []
        await client.close()


async def test_snapshots_outlive_the_snapshotter(
    settings: Settings, lazy: dict[Digest, OpenedLayer]
) -> None:
    for expected in ([], ["low"]):
        async with running_snapshotter(settings):
            client = Socket(settings.snapshotter.socket)
            assert [info.name for info in await client.list()] == expected
            await show(client, "low", LOW)
            await client.close()
        assert not settings.snapshotter.socket.exists()


async def test_only_root_may_ask(socket: Socket, settings: Settings) -> None:
    path = settings.snapshotter.socket

    assert path.stat().st_mode & 0o177 == 0
    assert path.parent.stat().st_mode & 0o077 == 0


async def test_there_is_one_for_a_directory(socket: Socket, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="another snapshotter"):
        async with running_snapshotter(settings):
            pass


@pytest.mark.parametrize("name", ["x" * 120, "nowhere\0"])
async def test_a_socket_that_cannot_be_is_said_so(
    settings: Settings, lazy: dict[Digest, OpenedLayer], tmp_path: Path, name: str
) -> None:
    if "\0" in name:
        (tmp_path / "file").touch()
        path = tmp_path / "file" / "s.sock"
    else:
        path = tmp_path / name
    settings = replace(settings, snapshotter=replace(settings.snapshotter, socket=path))

    with pytest.raises((ConfigError, OSError)):
        async with running_snapshotter(settings):
            pass


async def test_a_mirror_with_tls_is_refused_at_the_start(settings: Settings) -> None:
    section = replace(settings.snapshotter, mirror="https://127.0.0.1:5300")

    with pytest.raises(ConfigError, match="without TLS"):
        async with running_snapshotter(replace(settings, snapshotter=section)):
            pass


async def test_a_mount_that_hangs_holds_up_nobody_who_does_not_need_it(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await show(socket, "low", LOW)
    go_on, asked = threading.Event(), threading.Event()

    def hang(self: Mounted) -> None:
        asked.set()
        go_on.wait(20)

    monkeypatch.setattr(Mounted, "ensure", hang)
    waiting = asyncio.get_running_loop().create_task(
        socket.ask("Prepare", key="container", parent="low")
    )
    try:
        assert await asyncio.to_thread(asked.wait, 20)

        await socket.ask("Prepare", key="other")
        assert [info.name for info in await socket.list()] == ["low", "other"]
    finally:
        go_on.set()
    assert (await waiting).mounts


async def test_a_mount_that_says_nothing_is_given_up(
    socket: Socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    await show(socket, "low", LOW)
    go_on = threading.Event()
    monkeypatch.setattr(Mounted, "ensure", lambda self: go_on.wait(20))
    monkeypatch.setattr(snapshotter, "MOUNTED_S", 0.05)
    try:
        refused = await socket.refused("Prepare", key="container", parent="low")
    finally:
        go_on.set()

    assert refused is grpc.StatusCode.UNAVAILABLE
    assert [info.name for info in await socket.list()] == ["low"]
