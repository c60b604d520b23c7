"""What a snapshotter takes from a mirror, and what it does not."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import pytest
from aiohttp import web

from p2pdist.model.control import TRACE_UNIT_MAX, TRACE_UNITS_MAX
from p2pdist.model.ids import digest_of
from p2pdist.model.layer_index import INDEXED_BYTES_MIN
from p2pdist.oci import wanted_images
from p2pdist.oci.layered_image import QUESTION, encode_layered_image, layered_image
from p2pdist.oci.names import ImageName
from p2pdist.oci.traces import BODY_BYTES_MAX, encode_trace
from p2pdist.oci.wanted_images import WantedImage, encode_wanted_image
from p2pdist.streaming.snapshotter.mirror import Mirror, MirrorFault
from tests.fakes.http_server import serve_app

NAME = ImageName("docker.io", "library/app")
IMAGE = layered_image(NAME, [(digest_of(b"blob"), 4)], [digest_of(b"archive")])
SMALL = b"a small layer"


class Answers:
    def __init__(self) -> None:
        self.body: bytes | None = b""
        self.status = 200
        self.asked: list[str] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.raw_path)
        return web.Response(status=self.status, body=self.body)


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
async def mirror(answers: Answers) -> AsyncIterator[Mirror]:
    app = web.Application()
    app.router.add_route("*", "/{any:.*}", answers.answer)
    async with serve_app(app) as url, aiohttp.ClientSession() as session:
        yield Mirror(session, f"{url}/")


async def test_an_image_is_asked_for_by_chain_id(mirror: Mirror, answers: Answers) -> None:
    answers.body = encode_layered_image(IMAGE)

    assert await mirror.image_of_chain(IMAGE.layers[0].chain_id) == IMAGE
    assert answers.asked[0].startswith(f"{QUESTION}?chain=sha256")


async def test_what_is_not_there_is_none(mirror: Mirror, answers: Answers) -> None:
    answers.status = 404

    assert await mirror.image_of_chain(IMAGE.layers[0].chain_id) is None
    assert await mirror.layer_index(NAME, IMAGE.layers[0].digest) is None
    with pytest.raises(MirrorFault, match="is not there"):
        await mirror.small_blob(NAME, IMAGE.layers[0].digest)


async def test_a_small_layer_is_checked(mirror: Mirror, answers: Answers) -> None:
    answers.body = SMALL
    assert await mirror.small_blob(NAME, digest_of(SMALL)) == SMALL
    assert answers.asked[0].startswith("/v2/library/app/blobs/sha256:")
    assert answers.asked[0].endswith("?ns=docker.io")

    with pytest.raises(MirrorFault, match="other bytes"):
        await mirror.small_blob(NAME, digest_of(b"another"))


Ask = Callable[[Mirror], Awaitable[object]]


@pytest.mark.parametrize(
    "ask",
    [
        lambda mirror: mirror.image_of_chain(IMAGE.layers[0].chain_id),
        lambda mirror: mirror.layer_index(NAME, IMAGE.layers[0].digest),
        lambda mirror: mirror.small_blob(NAME, IMAGE.layers[0].digest),
    ],
)
@pytest.mark.parametrize("status", [500, 302, 206])
async def test_other_answers_are_faults(
    mirror: Mirror, answers: Answers, ask: Ask, status: int
) -> None:
    answers.status = status

    with pytest.raises(MirrorFault):
        await ask(mirror)


async def test_a_body_without_end_is_not_read(mirror: Mirror, answers: Answers) -> None:
    answers.body = bytes(INDEXED_BYTES_MIN + 1)

    with pytest.raises(MirrorFault, match="more than"):
        await mirror.small_blob(NAME, digest_of(answers.body))


async def test_no_image_is_a_fault(mirror: Mirror, answers: Answers) -> None:
    answers.body = b"<html>"

    with pytest.raises(MirrorFault, match="tells of no image"):
        await mirror.image_of_chain(IMAGE.layers[0].chain_id)


async def test_nobody_at_home_is_a_fault() -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(MirrorFault, match="does not answer"):
            await Mirror(session, "http://127.0.0.1:1").image_of_chain(digest_of(b"x"))


async def test_a_wanted_image_is_waited_for_and_settled(mirror: Mirror, answers: Answers) -> None:
    answers.body = encode_wanted_image(WantedImage(7, IMAGE))
    assert await mirror.wanted_image() == WantedImage(7, IMAGE)

    answers.status, answers.body = 204, None
    assert await mirror.wanted_image() is None, "none for a while"
    await mirror.settle_wanted(7)

    assert answers.asked == [wanted_images.WANTED] * 2 + [f"{wanted_images.WANTED}?number=7"]


async def test_a_coming_image_is_waited_for(mirror: Mirror, answers: Answers) -> None:
    answers.body = encode_wanted_image(WantedImage(7, IMAGE))
    assert await mirror.coming_image(None) == WantedImage(7, IMAGE)

    answers.status, answers.body = 204, None
    assert await mirror.coming_image(7) is None

    assert answers.asked == [wanted_images.COMING, f"{wanted_images.COMING}?after=7"]


async def test_a_mirror_that_tells_of_no_image_is_at_fault(
    mirror: Mirror, answers: Answers
) -> None:
    answers.body = b"{}"
    with pytest.raises(MirrorFault, match="tells of no image"):
        await mirror.wanted_image()


async def test_a_trace_is_as_long_as_it_may_be_and_not_longer(
    mirror: Mirror, answers: Answers
) -> None:
    longest = [TRACE_UNIT_MAX] * TRACE_UNITS_MAX
    answers.body = encode_trace(longest)
    assert await mirror.trace(digest_of(b"layer")) == longest
    answers.status = 404
    assert await mirror.trace(digest_of(b"layer")) == []


@pytest.mark.parametrize(
    "body",
    [
        bytes(BODY_BYTES_MAX + 1),
        encode_trace([1] * (TRACE_UNITS_MAX + 1)),
        encode_trace([TRACE_UNIT_MAX + 1]),
        encode_trace([-1]),
        b"",
        b"\xc1",
    ],
)
async def test_a_trace_that_is_none_is_refused(
    mirror: Mirror, answers: Answers, body: bytes
) -> None:
    answers.body = body
    with pytest.raises(MirrorFault):
        await mirror.trace(digest_of(b"layer"))
