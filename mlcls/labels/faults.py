"""Owns the faults of a table: gathered while it is read, told in one TableError."""

from dataclasses import dataclass, field
from typing import NoReturn

from mlcls.errors import TableError
from mlcls.naming import shown

SHOWN = 20


@dataclass(slots=True)
class Faults:
    """What is wrong with one table. `unit` is how a row is counted: `line` of a file (1-based), `row` of a frame."""

    source: str
    unit: str = "line"
    total: int = 0
    advice: dict[str, None] = field(default_factory=dict)
    _kept: list[tuple[int, int, str]] = field(default_factory=list)

    def add(self, line: int, text: str, *, column: str | None = None, position: int = 0) -> None:
        """One fault at `line` (0: of the whole table), in the column called `column`, the table's `position`-th."""
        where = f"{self.unit} {line}" if line else ""
        if column is not None:
            where += (", " if where else "") + f"column '{column}'"
        self.total += 1
        self._kept.append((line, position, f"{where}: {text}" if where else text))
        if len(self._kept) > 50 * SHOWN:  # a table of nothing but faults must not fill the memory
            self._kept = sorted(self._kept)[:SHOWN]

    def count(self, more: int) -> None:
        """Faults beyond those described: of one kind, later in the table than the ones that were added."""
        self.total += more

    def advise(self, text: str) -> None:
        """A sentence that stands once below the list, however many faults it explains."""
        self.advice[text] = None

    def check(self) -> None:
        """Raise the TableError when there is any fault."""
        if self.total:
            self.fail()

    def fail(self) -> NoReturn:
        """Raise the TableError: the first faults by line and column, how many more, and what to do."""
        first = [shown(text) for _, _, text in sorted(self._kept)[:SHOWN]]
        if self.total == 1:
            raise TableError(" ".join([f"{self.source}: {first[0]}", *map(_sentence, sorted(self.advice))]))
        lines = [f"{self.source}: {self.total:,} faults", *(f"  {text}" for text in first)]
        if self.total > len(first):
            lines.append(f"  ... and {self.total - len(first):,} more")
        raise TableError("\n".join([*lines, *map(_sentence, sorted(self.advice))]))


def _sentence(text: str) -> str:
    return f"({text})"
