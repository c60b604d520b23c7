"""Runs end-to-end tests for the figures that they take (root, Debian packages)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


def run_tests(*paths: str, figures: Path | None = None) -> None:
    """Run them; what they saw counts, also where one of them fails.

    `figures`: where they leave it, for those who want nothing of an earlier run.
    """
    environment = {**os.environ, "P2PDIST_REQUIRE_E2E": "1"}
    if figures is not None:
        environment["FIGURES_DIR"] = str(figures)
    argv = [sys.executable, "-m", "pytest", "-q", "--timeout=600", *paths]
    done = subprocess.run(argv, env=environment, check=False)
    if done.returncode:
        print(f"pytest ended with {done.returncode}: {' '.join(paths)}")


def noted(directory: Path) -> dict[str, float]:
    """What tests noted (`tests.figures.note`), by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}


def measured_by(*paths: str) -> dict[str, float]:
    """Run tests; return the figures of this run alone, so that an old one passes for none."""
    with tempfile.TemporaryDirectory() as name:
        run_tests(*paths, figures=Path(name))
        return noted(Path(name))
