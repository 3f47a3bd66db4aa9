"""Owns the guess at how a text table is written: its delimiter, its quotation marks, its width, its first rows."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from mlcls.errors import TableError
from mlcls.labels.cells import EMPTY, OTHER, kind_of
from mlcls.labels.faults import Faults
from mlcls.labels.lines import MARK, WHITESPACE, Cells, Dialect, cell_text, cut_rows, find_cells, open_table

# the rarer a character is in names and in text, the sooner it is taken for a delimiter when two explain a table alike
DELIMITERS: Final[dict[str, str]] = {
    "\t": "tabs between cells",
    "|": "| between cells",
    ";": "semicolons between cells",
    ",": "commas between cells",
    WHITESPACE: "whitespace between cells",
}
IMAGE_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif")

SAMPLE_BYTES: Final = 1 << 20
SAMPLE_ROWS: Final = 100


@dataclass(frozen=True, slots=True)
class Form:
    """How a text table is written, judged by its first rows."""

    dialect: Dialect
    width: int  # cells of a row
    first: tuple[str, ...]  # the first row's cells, after the preface
    line: int  # where that row stands, 1-based
    preface: int | None = None  # CelebA's own list begins with a line that says how many rows follow
    spaced: tuple[str, int] | None = (
        None  # a name that spaces seem to tear, and its line: most rows have such
    )

    @property
    def skipped(self) -> int:
        """Rows before the first."""
        return 0 if self.preface is None else 1


@dataclass(frozen=True, slots=True)
class _Candidate:
    dialect: Dialect
    lines: list[int]
    rows: list[tuple[str, ...]]
    width: int
    score: float


def detect_form(path: Path) -> Form:
    """How the text table at `path` is written.

    Raises:
        TableError: it cannot be read, is empty, or has one cell a row whatever is taken for the delimiter.
    """
    sample = _read_sample(path)
    candidates = [_judge(sample, delimiter) for delimiter in DELIMITERS]
    best = max(candidates, key=lambda candidate: candidate.score)  # the first of equals
    if not best.rows:
        raise TableError(f"{path}: the table is empty; expected a row an image: its name, then its labels")
    if best.width < 2:
        raise TableError(
            f"{path}: line {best.lines[0]}: one cell a row ('{_shorten(best.rows[0][0])}'); expected an image's name "
            "and its labels, with whitespace, commas, semicolons, tabs or | between them"
        )
    first = best.rows[0]
    spaced = _find_spaced(best)
    if len(first) == 1 and len(best.rows) > 1 and first[0].isdecimal() and len(first[0]) < 12:
        return Form(best.dialect, best.width, best.rows[1], best.lines[1], int(first[0]), spaced)
    return Form(best.dialect, best.width, first, best.lines[0], spaced=spaced)


def _find_spaced(candidate: _Candidate) -> tuple[str, int] | None:
    """The first name that spaces tear, and its line, where most rows have their image extension in a later cell.

    Only whitespace tears names; the cells up to the extension are the name, with one space between.
    """
    if candidate.dialect.delimiter != WHITESPACE:
        return None
    torn = []
    for row, line in zip(candidate.rows, candidate.lines, strict=True):
        ends = [i for i, cell in enumerate(row) if cell.lower().endswith(IMAGE_EXTENSIONS)]
        if ends and ends[0] > 0:
            torn.append((" ".join(row[: ends[0] + 1]), line))
    return torn[0] if 2 * len(torn) > len(candidate.rows) else None


def _read_sample(path: Path) -> bytes:
    """The first rows of the file, whole ones where that can be had; line breaks LF, no byte order mark."""
    with open_table(path) as file:
        raw = file.read(SAMPLE_BYTES)
    whole = len(raw) < SAMPLE_BYTES
    sample = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    sample = sample.removeprefix(MARK).replace(b"\n" + MARK, b"\n")
    if b"\0" in sample:  # the reader names its line; what comes after cannot be judged
        sample = sample[: sample.index(b"\0")] or b" "
    if not whole:
        sample = sample[: cut_rows(sample, quoting=True) or cut_rows(sample, quoting=False) or len(sample)]
    return sample if sample.endswith(b"\n") else sample + b"\n"


def _judge(sample: bytes, delimiter: str) -> _Candidate:
    """How well a delimiter explains the sample: rows of one width, labels in them, an image's name in each."""
    dialect = Dialect(delimiter)
    cells = find_cells(sample, dialect)
    if cells.stray is not None:
        plain = find_cells(sample, Dialect(delimiter, quoting=False))
        if not _encloses(plain):  # no cell begins with a quotation mark: it is a character like any other
            dialect = Dialect(delimiter, quoting=False)
        cells = plain
    lines, rows = _first_rows(cells, dialect.quoting)
    widths = Counter(map(len, rows))
    width = widths.most_common(1)[0][0] if widths else 0
    if width < 2:
        return _Candidate(dialect, lines, rows, width, score=0.0)
    regular = [row for row in rows if len(row) == width]
    kinds = [kind_of(cell) for row in regular for cell in row]
    labels = sum(kind not in (OTHER, EMPTY) for kind in kinds) / (len(regular) * (width - 1))
    named = sum(any(cell.lower().endswith(IMAGE_EXTENSIONS) for cell in row) for row in regular) / len(
        regular
    )
    return _Candidate(
        dialect, lines, rows, width, score=len(regular) / len(rows) * (1 + min(labels, 1.0) + named)
    )


def _encloses(cells: Cells) -> bool:
    """Whether a cell begins with a quotation mark."""
    return bool(np.any((cells.data[cells.starts] == ord('"')) & (cells.starts < cells.ends)))


def _first_rows(cells: Cells, quoting: bool) -> tuple[list[int], list[tuple[str, ...]]]:
    """The lines, from 1, and the text of the first rows that are not blank."""
    lines: list[int] = []
    rows: list[tuple[str, ...]] = []
    end = 0
    for line, count in zip(cells.lines.tolist(), cells.counts.tolist(), strict=True):
        start, end = end, end + count
        row = tuple(
            cell_text(cells, int(cells.starts[i]), int(cells.ends[i]), quoting) for i in range(start, end)
        )
        if any(row):
            lines.append(line + 1)
            rows.append(row)
        if len(rows) == SAMPLE_ROWS:
            break
    return lines, rows


def _shorten(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def check_preface(form: Form, rows: int, faults: Faults) -> None:
    """A first line that says how many rows follow must be right."""
    if form.preface is not None and form.preface != rows:
        faults.add(1, f"the line says that {form.preface:,} rows follow, the table has {rows:,}")
