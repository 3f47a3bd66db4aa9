"""Owns reading a text table: rows of whole blocks to text columns and kinds of label cells.

The check of the rows' lengths knows where each cell lies, so a label's kind is looked up right there, by its bytes:
pandas' parser, asked for a hundred columns of words, takes as long as a Python loop. It reads what has to be parsed.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import LABEL_WORDS, OTHER, UNKNOWN, kind_of
from mlcls.labels.detect import DELIMITERS, IMAGE_EXTENSIONS, Form, check_preface, detect_form
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.lines import (
    BLANKS,
    QUOTE,
    Cells,
    Dialect,
    cell_text,
    count_lines,
    find_cells,
    read_blocks,
    trim_cells,
)
from mlcls.labels.source import Chunk, Request, Text, strip_all

LONGEST: Final = 8  # bytes; every label word fits in a uint64
_CODES = {
    int.from_bytes(word.encode().ljust(LONGEST, b"\0"), "little"): kind for word, kind in LABEL_WORDS.items()
}
CODES: Final = np.array(sorted(_CODES), np.uint64)
CODE_KINDS: Final = np.array([_CODES[int(code)] for code in CODES], np.uint8)
MASKS: Final = np.array([(1 << 8 * n) - 1 for n in range(LONGEST + 1)], np.uint64)
BYTE_KINDS: Final = bytes(kind_of(chr(byte)) if byte < 128 else OTHER for byte in range(256))


@dataclass(frozen=True, slots=True)
class TextTable:
    """A text table whose form is known. See `source.Source`."""

    path: Path
    form: Form
    columns: tuple[str, ...]
    headed: bool
    bound: int
    unnamed: frozenset[int] = frozenset()  # columns whose header cell is empty

    @property
    def layout(self) -> str:
        """How the table is written, in words."""
        return f"{DELIMITERS[self.form.dialect.delimiter]}, {'a' if self.headed else 'no'} header"

    def chunks(self, text: Sequence[int], labels: Sequence[int], faults: Faults) -> Iterator[Chunk]:
        """The rows of full length, block by block; rows of another length are faults."""
        skip = self.form.skipped + self.headed
        total = 0
        for line, block in read_blocks(self.path, self.form.dialect.quoting, faults):
            cells = find_cells(block, self.form.dialect)
            stray = None
            while cells.stray is not None:  # what a mark that is never closed enclosed goes as well
                stray = cells.stray
                cells = find_cells(b"".join(block.splitlines(True)[:stray]), self.form.dialect)
            if stray is not None:
                _add_stray(line + stray, faults)
            if not len(cells.counts):
                return
            lines = cells.lines + line
            blank = _find_blank(cells)
            row_number = np.cumsum(~blank)
            wanted = ~blank & (row_number > skip)
            skip = max(0, skip - int(row_number[-1]))
            whole = cells.counts == self.form.width
            _add_widths(lines, cells.counts, wanted & ~whole, self.form.width, faults)
            total += int(np.count_nonzero(wanted))
            chunk = self._read(cells, wanted & whole, lines, text, labels)
            if len(chunk.lines):
                yield chunk
            if stray is not None:
                return
        check_preface(self.form, total, faults)

    def _read(
        self,
        cells: Cells,
        kept: NDArray[np.bool_],
        lines: NDArray[np.intp],
        text: Sequence[int],
        labels: Sequence[int],
    ) -> Chunk:
        """The rows that are `kept`, as a chunk."""
        quoting = self.form.dialect.quoting
        starts, ends = cells.starts, cells.ends
        if not kept.all():
            here = np.repeat(kept, cells.counts)
            starts, ends = starts[here], ends[here]
        starts, ends = starts.reshape(-1, self.form.width), ends.reshape(-1, self.form.width)
        label_starts, label_ends = _take(starts, labels), _take(ends, labels)

        def cell(row: int, index: int) -> str:
            return cell_text(cells, int(label_starts[row, index]), int(label_ends[row, index]), quoting)

        return Chunk(
            lines=lines[kept].astype(np.int64),
            text=tuple(_read_text(cells, starts[:, c], ends[:, c], self.form.dialect) for c in text),
            kinds=_read_kinds(cells.data, label_starts, label_ends, quoting),
            cell=cell,
        )


def _take(spans: NDArray[np.intp], columns: Sequence[int]) -> NDArray[np.intp]:
    """Some columns of `spans`: a view, not a copy, where they stand side by side."""
    if columns and list(columns) == list(range(columns[0], columns[0] + len(columns))):
        return spans[:, columns[0] : columns[0] + len(columns)]
    return spans[:, list(columns)]


def _find_blank(cells: Cells) -> NDArray[np.bool_]:
    """Rows [R] without a cell that holds something: blank lines, and the rows of delimiters that spreadsheets leave."""
    last = np.cumsum(cells.counts)
    first = last - cells.counts
    blank: NDArray[np.bool_] = cells.counts == 0
    at = np.minimum(first, len(cells.starts) - 1)
    if not cells.starts.size or not np.any((cells.starts[at] == cells.ends[at]) & ~blank):
        return blank  # every row begins with a cell that holds something
    filled = np.concatenate([[0], np.cumsum(cells.ends > cells.starts)])
    blank |= filled[last] == filled[first]
    return blank


def _add_stray(line: int, faults: Faults) -> None:
    faults.add(
        line,
        "a quotation mark that does not enclose a whole cell, or is never closed (the rows after it were not read); "
        'enclose the cell in quotation marks and double those inside: "5"" wide"',
    )


def _add_widths(
    lines: NDArray[np.intp], counts: NDArray[np.intp], wrong: NDArray[np.bool_], width: int, faults: Faults
) -> None:
    """Rows shorter or longer than the others."""
    rows = np.flatnonzero(wrong)
    for row in rows[:SHOWN]:
        cells = f"{counts[row]} cell{'s' if counts[row] != 1 else ''}"
        faults.add(int(lines[row]), f"{cells}, where the other rows have {width}")
    faults.count(max(0, len(rows) - SHOWN))
    if len(rows):
        faults.advise("a cell that holds the delimiter needs quotation marks; an unknown label is written NA")


def _read_text(cells: Cells, starts: NDArray[np.intp], ends: NDArray[np.intp], dialect: Dialect) -> Text:
    """The text [n] of the cells at `starts` to `ends` [n]; pandas' parser undoes quotation marks."""
    raw = cells.data.tobytes()
    column = b"\n".join([raw[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
    if not dialect.quoting or b'"' not in column:
        text = np.empty(len(starts), dtype=object)
        text[:] = column.decode().split("\n") if len(starts) else []
        return text
    import pandas as pd  # here: its import takes longer than most tables do

    frame = pd.read_csv(
        io.BytesIO(column + b"\n"),
        sep=dialect.delimiter or " ",
        header=None,
        names=["cell"],
        index_col=False,
        dtype=object,
        na_filter=False,
        skip_blank_lines=False,
        encoding="utf-8",
        engine="c",
        low_memory=False,
    )
    return strip_all(frame["cell"].to_numpy(), BLANKS)


def _read_kinds(
    data: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp], quoting: bool
) -> NDArray[np.uint8]:
    """The kinds [n, c] of cells at `starts` to `ends` [n, c]."""
    shape = starts.shape
    starts, ends = starts.ravel(), ends.ravel()
    raw = data.tobytes()
    if quoting and b'"' in raw:
        starts, ends = _unquote(data, starts, ends)
    kinds = np.frombuffer(raw.translate(BYTE_KINDS), np.uint8)[starts]
    lengths = ends - starts
    rest = np.flatnonzero(lengths != 1)
    if rest.size:
        lower = np.frombuffer(raw.lower() + bytes(LONGEST), np.uint8)
        eight = np.ndarray(len(raw), "<u8", lower, strides=(1,))  # the eight bytes from each byte on
        long = lengths[rest]
        codes = eight[starts[rest]] & MASKS[np.minimum(long, LONGEST)]
        nearest = np.minimum(np.searchsorted(CODES, codes), len(CODES) - 1)
        known = (CODES[nearest] == codes) & (long <= LONGEST)
        kinds[rest] = np.where(known, CODE_KINDS[nearest], OTHER)
    return kinds.reshape(shape)


def _unquote(
    data: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The spans inside the quotation marks of cells that have such."""
    quoted = (data[starts] == QUOTE) & (ends - starts >= 2)
    if not quoted.any():
        return starts, ends
    starts, ends = starts + quoted, ends - quoted
    trim_cells(data, starts, ends)
    return starts, ends


def open_text(path: Path, request: Request, exists: Callable[[str], bool]) -> TextTable:
    """The text table at `path`, its columns named by its header, by `names`, or as image, Attr1, Attr2, ...

    Args:
        exists: whether a name is an existing image, which tells a first row from a header.

    Raises:
        TableError: it cannot be read, has no rows of several cells, or `names` do not fit it.
    """
    form = detect_form(path)
    _check_spaced(path, form, request, exists)
    first = form.first
    if form.preface is not None and len(first) == form.width - 1:
        first = ("image", *first)  # CelebA's header names the attributes alone
    headed = is_header(first, request, exists)
    if headed and request.names is not None:
        raise TableError(
            f"{path}: line {form.line}: a header ('{first[0]}', '{first[1]}', ...), and --names is for a table "
            "without one; leave --names out, or delete the header"
        )
    if headed and len(first) != form.width:
        raise TableError(
            f"{path}: line {form.line}: the header has {len(first)} cells and the rows have {form.width}; "
            "give every column one name"
        )
    if not headed:
        return TextTable(path, form, default_columns(path, form.width, request), headed, _bound(path, form))
    columns = tuple(name or f"column {i + 1}" for i, name in enumerate(first))
    unnamed = frozenset(i for i, name in enumerate(first) if not name)
    return TextTable(path, form, columns, headed, _bound(path, form), unnamed)


def _check_spaced(path: Path, form: Form, request: Request, exists: Callable[[str], bool]) -> None:
    """Raise the TableError of names that hold spaces, unquoted, in a table with whitespace between cells."""
    if form.spaced is None or request.image_column is not None:
        return
    name, line = form.spaced
    if exists(name.partition(" ")[0]):  # the first cell is an image, and another column names one too
        return
    other = (
        "" if exists(name) else "; where another column than the first names the images, say --image-column"
    )
    raise TableError(
        f"{path}: line {line}: '{name}' is read as {name.count(' ') + 1} cells, since whitespace stands between "
        f"cells here: quote names that hold spaces, or put commas between cells{other}"
    )


def is_header(first: Sequence[str], request: Request, exists: Callable[[str], bool]) -> bool:
    """Whether the first row names the columns: its label cells are not all labels, its first cell names no image."""
    if request.image_column is not None and request.image_column in first:
        return True
    if first[0].lower().endswith(IMAGE_EXTENSIONS) or exists(first[0]):
        return False
    kinds = [kind_of(cell) for cell in first[1:]]
    # where no cell is a label, 0 or 1, but one is NA, that is a column called NA
    return OTHER in kinds or (set(kinds) == {UNKNOWN} and len(set(first)) == len(first))


def default_columns(path: Path, width: int, request: Request) -> tuple[str, ...]:
    """The columns' names of a table without a header.

    Raises:
        TableError: `names` are neither as many as the columns nor as the columns without the image's.
    """
    names = request.names
    if names is None:
        return ("image", *(f"Attr{i}" for i in range(1, width)))
    if len(names) == width - 1:
        return ("image", *names)
    if len(names) == width:
        return names
    raise TableError(
        f"{path}: --names: {len(names)} names for {width} columns; expected {width - 1} (the labels') or {width} "
        "(the image's first)"
    )


def _bound(path: Path, form: Form) -> int:
    """At least as many rows as the file can hold: not more than its lines, nor than cells of no bytes would fill."""
    lines = 1
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            lines += count_lines(block) + (block.count(b"\r") if b"\r" in block else 0)
    return min(lines, path.stat().st_size // form.width + 1)
