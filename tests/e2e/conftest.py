"""The image that all end-to-end tests pull, and a lab for each test."""

from __future__ import annotations

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness.image import REFERENCE, Image, build_image
from tests.e2e.harness.lab import Lab, open_lab, open_labs
from tests.e2e.harness.parts import missing_parts
from tests.e2e.harness.processes import log_tail

__all__ = ["missing_parts"]


@pytest.fixture(scope="session")
def image_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="p2pe-image-") as path:
        yield Path(path)


@pytest.fixture(scope="session")
def image(image_dir: Path) -> Image:
    """300 MB in six layers."""
    return build_image(image_dir / "layout")


@pytest.fixture(scope="session")
def storage(image_dir: Path, image: Image) -> Path:
    """The storage of a registry that holds the image as REFERENCE."""
    path = image_dir / "storage"
    with open_lab() as lab:
        lab.registry(lab.host("registry"), path).push(image, REFERENCE)
    return path


@pytest.fixture
def lab() -> Iterator[Lab]:
    with open_lab() as opened:
        yield opened


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, pytest.TestReport]:
    report: pytest.TestReport = yield
    if report.failed:
        report.sections += [(log.name, log_tail(log)) for lab in open_labs for log in lab.logs()]
    return report
