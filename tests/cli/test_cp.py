"""`p2pdist cp` against a real proxy and peer: files, directories, links, refusals."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import zstandard
from click.testing import CliRunner, Result

from p2pdist.cli.cp import cp
from p2pdist.cli.exit_codes import Exit
from p2pdist.cli.failures import CommandError, cause_of
from p2pdist.model.ids import Digest
from tests.cluster.test_layer_indexes import index_at
from tests.fakes.cluster import open_lab, url_of
from tests.fakes.pulling import pull, random_bytes
from tests.fakes.registry import FakeRegistry
from tests.streaming.archives import (
    archive,
    device,
    directory,
    file,
    gzipped,
    hardlink,
    symlink,
)

NOISE = [random_bytes(700_000, seed) for seed in range(6)]
BASE = archive(
    directory("etc"),
    file("etc/motd", b"hello\n", mode=0o4640),
    file("etc/gone", b"old"),
    *(file(f"big/{i}", data) for i, data in enumerate(NOISE)),
    symlink("lib", "usr/lib"),
    file("usr/lib/x.so", b"x" * 10),
)
TOP = archive(
    file("etc/.wh.gone"),
    file("etc/new", b"new\n"),
    hardlink("etc/new2", "etc/new"),
    symlink("etc/link", "/etc/motd"),
    device("etc/null", 1, 3),
    file("empty"),
)


class Image:
    """An image of real archives at a registry, and the mirror to read it at."""

    def __init__(self, registry: FakeRegistry, endpoint: str) -> None:
        self.registry = registry
        self.endpoint = endpoint
        self.layers: list[Digest] = []

    def push(self, *archives: bytes, pack: list[bytes] | None = None) -> None:
        layers = pack if pack is not None else [gzipped(a, 1) for a in archives]
        pushed = self.registry.add_image("library/app", "1", layers, archives=archives)
        self.layers = list(pushed.layer_digests)

    async def cp(self, path: str, target: Path | str, *options: str, name: str = "app:1") -> Result:
        arguments = [f"{name}:{path}", str(target), "--endpoint", self.endpoint, *options]
        return await asyncio.to_thread(CliRunner().invoke, cp, arguments)

    async def refusal(
        self, path: str, target: Path | str, *options: str, name: str = "app:1"
    ) -> CommandError:
        """As the command line shows it."""
        result = await self.cp(path, target, *options, name=name)
        assert isinstance(result.exception, Exception)
        cause = cause_of(result.exception)
        assert isinstance(cause, CommandError), result.exception
        return cause


@pytest.fixture
async def image(tmp_path: Path) -> AsyncIterator[Image]:
    async with (
        FakeRegistry() as registry,
        open_lab(tmp_path / "lab", {"docker.io": registry.url}) as lab,
    ):
        lab.layer_index = True
        await lab.proxy()
        peer = await lab.peer("peer")
        image = Image(registry, url_of(peer.mirror))
        image.push(BASE, TOP)
        yield image


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


async def indexed(image: Image) -> None:
    async with aiohttp.ClientSession() as client:
        await pull(client, image.endpoint)
        await index_at(client, image.endpoint, image.layers[0])


async def test_a_file_is_copied_with_its_mode_and_time(image: Image, out: Path) -> None:
    result = await image.cp("/etc/motd", out)
    assert result.exit_code == Exit.DONE, result.exception
    status = (out / "motd").stat()
    assert (out / "motd").read_bytes() == b"hello\n"
    assert status.st_mode & 0o7777 == 0o640  # no set-id bit
    assert status.st_mtime == 1_700_000_000
    assert "copied 1 file (6 B)" in result.output


async def test_only_what_the_file_needs_is_fetched(image: Image, out: Path) -> None:
    await indexed(image)
    result = await image.cp("/big/3", out / "three", "--json", "-q")
    record = json.loads(result.output)
    assert (out / "three").read_bytes() == NOISE[3]
    assert record["copied_bytes"] == len(NOISE[3])
    # Two spans of 1 MiB hold it, and the small layer above came whole.
    assert record["fetched_bytes"] < 2.5 * (1 << 20) < record["image_bytes"]


async def test_a_layer_without_an_index_is_fetched_whole(image: Image, out: Path) -> None:
    result = await image.cp("/big/3", out / "three", "--json", "-q")
    record = json.loads(result.output)
    assert (out / "three").read_bytes() == NOISE[3]
    assert record["fetched_bytes"] == record["image_bytes"]


async def test_a_directory_is_copied_with_all_that_it_shows(image: Image, out: Path) -> None:
    result = await image.cp("/etc", out)
    assert result.exit_code == Exit.DONE, result.exception
    etc = out / "etc"
    assert sorted(os.listdir(etc)) == ["link", "motd", "new", "new2"]
    assert (etc / "new").stat().st_ino == (etc / "new2").stat().st_ino
    assert os.readlink(etc / "link") == "/etc/motd"
    assert "1 devices and pipes left out" in result.output
    assert os.listdir(out) == ["etc"]


async def test_the_whole_image_can_be_copied(image: Image, out: Path) -> None:
    await indexed(image)
    result = await image.cp("/", out / "root", "-q")
    assert result.exit_code == Exit.DONE, result.exception
    assert [(out / f"root/big/{i}").read_bytes() for i in range(6)] == NOISE
    assert (out / "root/empty").read_bytes() == b""


async def test_links_on_the_way_are_followed_and_one_at_the_end_if_asked(
    image: Image, out: Path
) -> None:
    await image.cp("/lib/x.so", out)
    assert (out / "x.so").read_bytes() == b"x" * 10
    await image.cp("/etc/link", out)
    assert os.readlink(out / "link") == "/etc/motd"
    await image.cp("/etc/link", out / "followed", "-L")
    assert (out / "followed").read_bytes() == b"hello\n"


async def test_standard_output_takes_one_file(image: Image) -> None:
    result = await image.cp("/etc/motd", "-", "-q")
    assert result.stdout_bytes == b"hello\n"
    assert (await image.refusal("/etc", "-")).code == Exit.USAGE


async def test_zstd_and_plain_layers_are_read_as_well(image: Image, out: Path) -> None:
    image.push(BASE, TOP, pack=[zstandard.compress(BASE), TOP])
    result = await image.cp("/etc", out)
    assert result.exit_code == Exit.DONE, result.exception
    assert (out / "etc/motd").read_bytes() == b"hello\n"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/etc/gone", Exit.NOT_FOUND),
        ("/etc/motd/x", Exit.NOT_FOUND),
        ("/nowhere", Exit.NOT_FOUND),
    ],
)
async def test_what_the_image_does_not_show_is_not_there(
    image: Image, out: Path, path: str, code: Exit
) -> None:
    assert (await image.refusal(path, out)).code == code
    assert os.listdir(out) == []


async def test_an_archive_that_is_not_the_configs_is_refused(image: Image, out: Path) -> None:
    image.push(BASE, TOP, pack=[gzipped(BASE + b"\0" * 512, 1), gzipped(TOP)])
    refusal = await image.refusal("/etc/motd", out)
    assert "not the archive that the config names" in str(refusal)
    assert os.listdir(out) == []


async def test_what_is_there_is_replaced_only_by_a_file(image: Image, out: Path) -> None:
    (out / "motd").write_text("before")
    await image.cp("/etc/motd", out)
    assert (out / "motd").read_bytes() == b"hello\n"
    (out / "etc").mkdir()
    (out / "etc" / "mine").touch()
    assert "exists" in str(await image.refusal("/etc", out))
    assert sorted(os.listdir(out)) == ["etc", "motd"]


async def test_an_index_of_another_archive_is_not_believed(image: Image, out: Path) -> None:
    """The config names what a layer holds; an index of anything else is as good as none."""
    await indexed(image)
    other = archive(file("etc/motd", b"something else\n"), *(file(f"{i}") for i in range(9)))
    pushed = image.registry.add_image("library/other", "1", [gzipped(BASE, 1)], archives=[other])
    assert pushed.layer_digests == image.layers[:1]
    refusal = await image.refusal("/etc/motd", out, name="other:1")
    assert "not the archive that the config names" in str(refusal)


@pytest.mark.parametrize("text", ["app:1", "/etc/motd", "app:1:etc", "UPPER:1:/etc"])
def test_a_source_that_names_no_image_and_path_is_wrong_usage(text: str) -> None:
    result = CliRunner().invoke(cp, [text, "."])
    assert isinstance(result.exception, CommandError)
    assert result.exception.code == Exit.USAGE


async def test_a_target_in_no_directory_is_wrong_usage(image: Image, out: Path) -> None:
    for target in (out / "no" / "file", f"{out}/no/"):
        assert "there is no directory" in str(await image.refusal("/etc/motd", target))


async def test_bytes_that_are_wrong_are_never_written(image: Image, out: Path) -> None:
    """A mirror that lies: the span's hash is the proxy's, and what has not that is refused."""
    await indexed(image)

    lying = await serve_lies(image.endpoint)
    try:
        arguments = ["app:1:/big/3", str(out / "three"), "--endpoint", lying.url]
        result = await asyncio.to_thread(CliRunner().invoke, cp, arguments)
    finally:
        await lying.close()
    assert isinstance(result.exception, CommandError)
    assert result.exception.code == Exit.INTEGRITY
    assert os.listdir(out) == []


@dataclass
class _Lies:
    url: str
    close: Callable[[], Awaitable[None]]


async def serve_lies(endpoint: str) -> _Lies:
    """Passes everything on, and flips a byte in each range of a blob."""
    from aiohttp import web

    session = aiohttp.ClientSession(auto_decompress=False)

    async def handle(request: web.Request) -> web.Response:
        headers = {k: v for k, v in request.headers.items() if k in ("Range", "Accept")}
        async with session.get(f"{endpoint}{request.raw_path}", headers=headers) as answer:
            body = bytearray(await answer.read())
            if answer.status == 206:
                body[len(body) // 2] ^= 1
            kept = {k: answer.headers[k] for k in ("Content-Range",) if k in answer.headers}
            return web.Response(
                body=bytes(body), status=answer.status, headers=kept,
                content_type=answer.content_type,
            )  # fmt: skip

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]

    async def close() -> None:
        await runner.cleanup()
        await session.close()

    return _Lies(f"http://127.0.0.1:{port}", close)
