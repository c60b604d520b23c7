"""The blocks of commands in the project's texts, by the names that comments give them."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path
from typing import Final

REPOSITORY_ROOT: Final = Path(__file__).parents[2]
README: Final = REPOSITORY_ROOT / "README.md"
INSTALL: Final = REPOSITORY_ROOT / "docs" / "install.md"
# `<!-- test: NAME -->`, which no reader sees, and the next block that is set off by four spaces.
_BLOCK: Final = re.compile(r"^<!-- test: ([a-z-]+) -->\n\n((?: {4}.*\n|\n(?= {4}))+)", re.MULTILINE)


def blocks(text: Path) -> dict[str, str]:
    """Name -> commands, as a reader would copy them."""
    found = _BLOCK.findall(text.read_text())
    named = {name: textwrap.dedent(block) for name, block in found}
    assert len(named) == len(found), f"{text}: two blocks of one name"
    return named


def in_foreground(line: str, log: str, wait: str) -> str:
    """Run a daemon in a terminal of its own, whose screen is `log`; `wait` until it is there."""
    return f"{{ {line}\n}} >{log} 2>&1 &\n{wait}"


def typed(block: str, wait: str) -> str:
    """As a person types it: stopping at what fails, and running `wait` once a daemon has gone to
    the background."""
    lines = ["set -euo pipefail"]
    for line in block.splitlines():
        lines.append(line)
        if line.partition("#")[0].rstrip().endswith("&"):
            lines.append(wait)
    return "\n".join(lines)
