"""The stack that all tests here share, and how long each part of it took."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.compose import base_images
from tests.compose.stack import REPOSITORY_ROOT, Stack
from tests.conftest import REQUIRE_E2E
from tests.e2e.harness.image import REFERENCE, Image, build_image
from tests.e2e.harness.lab import open_lab

# Debian packages of the same names.
PROGRAMS: Final = ("docker-compose", "debootstrap")
# Two layers of several chunks, and one that is a chunk of its own.
LAYER_BYTES: Final = (12_000_000, 5_000_000, 100_000)
WHEELS: Final = REPOSITORY_ROOT / "deploy" / "wheels"
_took_s: Final[dict[str, float]] = {}


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    began_s = time.monotonic()
    try:
        yield
    finally:
        _took_s[what] = time.monotonic() - began_s


@pytest.fixture(scope="session")
def _programs() -> None:
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing and os.environ.get(REQUIRE_E2E) == "1":
        pytest.fail(f"{REQUIRE_E2E}=1, but missing: {', '.join(missing)}", pytrace=False)
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}")


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build_image(tmp_path_factory.mktemp("image") / "layout", layer_bytes=LAYER_BYTES)


@pytest.fixture(scope="session")
def stack(_programs: None, image: Image) -> Iterator[Stack]:
    """The compose file, up and healthy, its registry with the image as REFERENCE.

    At the end it is taken down, whatever happened, and must leave nothing.
    """
    with open_lab() as lab:
        host = lab.host("machine")
        # Docker on this machine pulls through the first peer, once that is there.
        dockerd = lab.dockerd(host, "http://127.0.0.1:5300", networking=True)
        stack = Stack(dockerd, host, lab.work)
        with timed("base images"):
            base_images.load(dockerd)
        with _wheels(), timed("image built"):
            stack.build()
        try:
            with timed("all healthy"):
                stack.up()
            stack.push(image, REFERENCE)
            yield stack
        finally:
            with timed("down"):
                stack.down()
        assert stack.leftovers() == []


@contextlib.contextmanager
def _wheels() -> Iterator[None]:
    """Have the wheels there for a build: the daemon's network leads nowhere, as if air-gapped.

    Those that were not there before are deleted: later builds of the user's would be bound to them.
    """
    if any(WHEELS.glob("*.whl")):
        yield
        return
    try:
        subprocess.run([sys.executable, WHEELS / "fetch.py", "--quiet"], check=True, timeout=300)
        yield
    finally:
        for wheel in WHEELS.glob("*.whl"):
            wheel.unlink()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _took_s:
        terminalreporter.section("compose: seconds")
        for what, seconds in _took_s.items():
            terminalreporter.line(f"{what:<20}{seconds:6.1f}")
