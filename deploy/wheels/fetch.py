#!/usr/bin/env python3
"""Download the wheels that an image build without a network needs; see README.md beside this."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
# Debian bookworm, the base of the image, has glibc 2.36; wheels name the oldest one that will do.
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PYTHON = "3.11"


def main() -> int:
    """Return pip's exit status; further arguments go to pip."""
    # The build backend, too: the image builds p2pdist itself from the checkout.
    locks = [
        f"--requirement={ROOT / name}" for name in ("requirements.lock", "requirements-build.lock")
    ]
    options = [
        "--only-binary=:all:",
        "--require-hashes",
        f"--python-version={PYTHON}",
        f"--dest={HERE}",
    ]
    options += [f"--platform={name}" for name in PLATFORMS]
    command = [sys.executable, "-m", "pip", "download", *options, *sys.argv[1:], *locks]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # our own words


if __name__ == "__main__":
    sys.exit(main())
