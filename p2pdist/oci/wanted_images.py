"""Images that engines are about to pull, as a mirror tells the one who can show their layers.

Who looks for layers in image stores waits until they are there (`WANTED`). Who has a snapshotter
asks that itself, layer by layer, a moment later: it does not wait, and finds all opened (`COMING`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from p2pdist.oci.layered_image import BODY_BYTES_MAX as IMAGE_BYTES_MAX
from p2pdist.oci.layered_image import LayeredImage, decode_layered_image, encode_layered_image

WANTED: Final = "/v2/_p2pdist/wanted-image"
"""`GET`: the next one, when it is asked for, 204 where none is for WAIT_S; `POST ?number=<n>`: it
is shown, or will not be, and whoever pulls it need not wait any more."""
COMING: Final = "/v2/_p2pdist/coming-image"
"""`GET ?after=<n>`: the next one that is asked for after that number; without it, after the
question; 204 where none is for WAIT_S."""
WAIT_S: Final = 25.0
BODY_BYTES_MAX: Final = IMAGE_BYTES_MAX + 1024
NUMBER_MAX: Final = (1 << 53) - 1

_ENGINES: Final = ("containers/", "Buildah/", "cri-o/")
"""How those begin to name themselves that look for each layer in stores of images before they fetch
it: Podman (as its library, containers/image, does by itself), Buildah and CRI-O."""


_WITH_SNAPSHOTTERS: Final = ("containerd/",)
"""containerd, and those that pull by its library. Not Docker, which calls itself `docker/`: it has
none, or needs whole layers (`snapshotter.whole_namespaces`)."""


@dataclass(frozen=True, slots=True)
class WantedImage:
    number: int
    """Of the question, for the answer, or for the next question."""
    image: LayeredImage


class _WantedJson(msgspec.Struct, frozen=True):
    number: Annotated[int, msgspec.Meta(ge=0, le=NUMBER_MAX)]
    image: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(_WantedJson)


def looks_into_stores(user_agent: str) -> bool:
    """Whether an engine that calls itself so may find layers in an image store."""
    return user_agent.startswith(_ENGINES)


def has_snapshotters(user_agent: str) -> bool:
    """Whether an engine that calls itself so may ask a snapshotter for layers."""
    return user_agent.startswith(_WITH_SNAPSHOTTERS)


def encode_wanted_image(wanted: WantedImage) -> bytes:
    image = msgspec.Raw(encode_layered_image(wanted.image))
    return msgspec.json.encode(_WantedJson(wanted.number, image))


def decode_wanted_image(body: bytes) -> WantedImage:
    """Raises ValueError."""
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"an answer of {len(body)} bytes")
    try:
        raw = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    return WantedImage(raw.number, decode_layered_image(bytes(raw.image)))
