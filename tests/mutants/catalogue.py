"""The mutants of `catalogue.toml`, and what makes one fit to be run."""

from __future__ import annotations

import ast
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CATALOGUE: Final = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake: in `file`, `text` becomes `by`; some of `tests` must fail then."""

    name: str
    file: str
    text: str
    by: str
    tests: tuple[str, ...]

    def applied_to(self, source: str) -> str:
        """Return the mutated source; raise ValueError where the mutant does not fit any more."""
        if (found := source.count(self.text)) != 1:
            raise ValueError(f"{self.name}: its text is {found} times in {self.file}, not once")
        mutated = source.replace(self.text, self.by)
        try:
            changed = self._meaning(mutated) != self._meaning(source)
        except SyntaxError as error:
            raise ValueError(f"{self.name}: {error}") from None
        if not changed:
            raise ValueError(f"{self.name}: it changes nothing")
        return mutated

    def _meaning(self, source: str) -> str:
        return ast.dump(ast.parse(source)) if self.file.endswith(".py") else source


def read_catalogue(path: Path = CATALOGUE) -> list[Mutant]:
    """All mutants, in the order of the file."""
    document = tomllib.loads(path.read_text())
    tables = document.pop("mutant")
    assert not document, f"tables that nobody reads: {', '.join(document)}"
    return [Mutant(**{**table, "tests": tuple(table["tests"])}) for table in tables]
