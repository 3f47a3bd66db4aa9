"""Owns the form of a text table: its bytes in blocks of whole rows, and where each cell begins and ends.

pandas' parser names only the first row of a wrong length and fills short ones in silence; here every one is found,
and the parser is then given nothing that it could stumble over.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.faults import Faults

# bytes; with larger blocks the arrays of cell positions leave the processor's cache: slower by half
BLOCK: Final = 1 << 18
WHITESPACE: Final = ""  # the delimiter of tables with runs of spaces or tabs between cells

MARK: Final = b"\xef\xbb\xbf"  # the byte order mark of UTF-8
NEWLINE: Final = ord("\n")
QUOTE: Final = ord('"')
BLANKS: Final = " \t"  # what may stand around a cell
BLANK: Final = np.array([chr(byte) in BLANKS for byte in range(256)], np.bool_)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How cells are told apart: one character, or "" for runs of spaces and tabs; whether quotation marks enclose."""

    delimiter: str
    quoting: bool = True


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a block, without outer spaces: M cells in R rows, blank ones among them."""

    data: NDArray[np.uint8]
    starts: NDArray[np.intp]  # [M]
    ends: NDArray[np.intp]  # [M], one past the last byte
    counts: NDArray[np.intp]  # [R] cells of each row
    lines: NDArray[np.intp]  # [R] line of the block, from 0, where the row begins
    stray: int | None = (
        None  # line, from 0, of a quotation mark that neither opens nor closes a cell; then no cells
    )


def open_table(path: Path) -> BufferedReader:
    """The file opened for reading bytes.

    Raises:
        TableError: it does not exist, is a folder, cannot be read, or is plainly no table of text.
    """
    try:
        if path.is_dir():
            raise TableError(f"{path}: a folder; --labels expects the label table, a file")
        if path.exists() and not path.is_file():  # a pipe gives nothing twice, and a device never ends
            raise TableError(f"{path}: a device or a pipe; --labels expects the label table, a file")
        file = path.open("rb")
        start = file.peek(4)[:4]
    except FileNotFoundError as error:
        raise TableError(f"{path}: no such file; give the label table with --labels") from error
    except (OSError, ValueError) as error:
        raise TableError(f"{path}: the label table cannot be read: {error}") from error
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            file.close()
            raise TableError(f"{path}: {what}; save the table as CSV in UTF-8")
    return file


_FOREIGN: Final = {
    b"PK\x03\x04": "a zip archive or a spreadsheet (.xlsx, .ods), not a table of text",
    b"\xff\xfe": "text in UTF-16, not UTF-8",
    b"\xfe\xff": "text in UTF-16, not UTF-8",
    b"\x1f\x8b": "a gzip archive, not a table of text",
    b"\x89PNG": "an image, not a table",
    b"\xff\xd8\xff": "an image, not a table",
}


def cut_rows(buffer: bytes, quoting: bool) -> int:
    """How many bytes of `buffer` are whole rows: up to its last line break outside quotation marks; 0 for none."""
    cut = buffer.rfind(b"\n")
    if not quoting or cut < 0:
        return cut + 1
    odd = buffer.count(b'"', 0, cut) % 2
    while cut >= 0 and odd:
        before = buffer.rfind(b"\n", 0, cut)
        odd ^= buffer.count(b'"', max(before, 0), cut) % 2
        cut = before
    return cut + 1


def count_lines(block: bytes) -> int:
    """Line breaks in a block; `bytes.count` takes ten times as long."""
    return int(np.count_nonzero(np.frombuffer(block, np.uint8) == NEWLINE))


def read_blocks(path: Path, quoting: bool, faults: Faults, size: int = BLOCK) -> Iterator[tuple[int, bytes]]:
    """Whole rows of a text file, about `size` bytes at a time, as (physical line of the first, bytes).

    Line breaks are all LF then, byte order marks are gone, and the last row ends in a line break. Bytes that
    are not UTF-8 are a fault, and so is a NUL, at which reading ends.
    """
    line, carry, want = 1, b"", size
    with open_table(path) as file:
        while True:
            raw = file.read(want)
            last = len(raw) < want
            if raw.endswith(b"\r"):
                raw += file.read(1)
            if b"\r" in raw:
                raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            buffer = carry + raw
            if last and buffer and not buffer.endswith(b"\n"):
                buffer += b"\n"
            cut = len(buffer) if last else cut_rows(buffer, quoting)
            block, more = _check_text(buffer[:cut], line, faults)
            if block:
                yield line, block
            if last or not more:
                return
            line += count_lines(buffer[:cut])
            carry = buffer[cut:]
            want = max(size, len(carry))  # a row longer than a block: read twice as far each time


def _check_text(block: bytes, line: int, faults: Faults) -> tuple[bytes, bool]:
    """The block as UTF-8 without NUL, and whether reading can go on; what had to go is a fault."""
    nul = block.find(b"\0")
    if nul >= 0:
        before = block[: block.rfind(b"\n", 0, nul) + 1]
        text = "a NUL byte, which no text holds: this is no table, or a damaged one (the rest was not read)"
        faults.add(line + count_lines(before), text)
        faults.advise("save the table as CSV in UTF-8")
        return _check_text(before, line, faults)[0], False
    if block.isascii():
        return block, True
    if MARK in block:  # tables put one behind the other keep theirs
        block = block.removeprefix(MARK).replace(b"\n" + MARK, b"\n")
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return b"".join(
            _check_line(row, line + i, faults) for i, row in enumerate(block.splitlines(True))
        ), True
    return block, True


def _check_line(row: bytes, line: int, faults: Faults) -> bytes:
    try:
        row.decode("utf-8")
    except UnicodeDecodeError as error:
        faults.add(line, f"byte 0x{row[error.start]:02x} is not UTF-8")
        faults.advise("save the table as CSV in UTF-8")
        return row.decode("utf-8", errors="replace").encode()
    return row


def find_cells(block: bytes, dialect: Dialect) -> Cells:
    """Where the cells of a block lie. `block` ends in a line break, or is empty."""
    data = np.frombuffer(block, np.uint8)
    newline = data == NEWLINE
    inside, unclosed = None, False
    if dialect.quoting and b'"' in block:
        # after an odd number of quotation marks one is inside; uint8 wraps, which keeps the parity
        inside = (np.cumsum(data == QUOTE, dtype=np.uint8) & 1).astype(np.bool_)
        unclosed, inside[-1] = bool(inside[-1]), False
    breaks = newline if inside is None else newline & ~inside
    rows = np.flatnonzero(breaks)
    if dialect.delimiter == WHITESPACE:
        starts, ends, counts = _split_at_blanks(data, newline, inside, rows)
    else:
        starts, ends, counts = _split_at_delimiter(data, breaks, inside, rows, dialect.delimiter)
        if b" " in block or (b"\t" in block and dialect.delimiter != "\t"):
            trim_cells(data, starts, ends)
    if inside is None:
        return Cells(data, starts, ends, counts, np.arange(len(rows)))
    stray = _find_stray(data, inside, starts, ends, unclosed)
    if stray is not None:
        none = np.empty(0, np.intp)
        return Cells(data, none, none, none, none, stray=int(np.count_nonzero(newline[:stray])))
    lines = np.searchsorted(np.flatnonzero(newline), np.concatenate([[0], rows[:-1] + 1]))
    return Cells(data, starts, ends, counts, lines)


Spans = tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]


def _split_at_delimiter(
    data: NDArray[np.uint8],
    breaks: NDArray[np.bool_],
    inside: NDArray[np.bool_] | None,
    rows: NDArray[np.intp],
    delimiter: str,
) -> Spans:
    """Starts, ends and cells of each row, where every delimiter ends a cell."""
    between = data == ord(delimiter)
    if inside is not None:
        between &= ~inside
    ends = np.flatnonzero(between | breaks)
    starts = np.empty_like(ends)
    starts[:1] = 0
    np.add(ends[:-1], 1, out=starts[1:])
    return starts, ends, np.diff(np.searchsorted(ends, rows), prepend=-1)


def _split_at_blanks(
    data: NDArray[np.uint8],
    newline: NDArray[np.bool_],
    inside: NDArray[np.bool_] | None,
    rows: NDArray[np.intp],
) -> Spans:
    """Starts, ends and cells of each row, where a run of spaces and tabs ends a cell."""
    solid = ~(BLANK[data] | newline)
    if inside is not None:
        solid |= inside
    edges = np.diff(solid.view(np.int8), prepend=np.int8(0))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return starts, ends, np.diff(np.searchsorted(starts, rows), prepend=0)


def trim_cells(data: NDArray[np.uint8], starts: NDArray[np.intp], ends: NDArray[np.intp]) -> None:
    """Move starts and ends, in place, past spaces and tabs around the cells."""
    todo = np.flatnonzero(BLANK[data[starts]] & (starts < ends))
    while todo.size:
        starts[todo] += 1
        todo = todo[BLANK[data[starts[todo]]] & (starts[todo] < ends[todo])]
    todo = np.flatnonzero(BLANK[data[ends - 1]] & (starts < ends))
    while todo.size:
        ends[todo] -= 1
        todo = todo[BLANK[data[ends[todo] - 1]] & (starts[todo] < ends[todo])]


def _find_stray(
    data: NDArray[np.uint8],
    inside: NDArray[np.bool_],
    starts: NDArray[np.intp],
    ends: NDArray[np.intp],
    unclosed: bool,
) -> int | None:
    """The first quotation mark that neither begins nor ends a cell, nor is one of two that stand for one.

    It is the last of all where nothing but its other half is missing: `unclosed`.
    """
    quotes = np.flatnonzero(data == QUOTE)
    opens = inside[quotes]
    begins = np.zeros(len(data) + 1, np.bool_)
    begins[starts] = True
    finishes = np.zeros(len(data) + 1, np.bool_)
    finishes[ends] = True
    doubled = np.zeros(len(quotes), np.bool_)  # a mark that follows, or is followed by, another
    doubled[1:] = (np.diff(quotes) == 1) & opens[1:]
    doubled[:-1] |= (np.diff(quotes) == 1) & ~opens[:-1]
    fine = doubled | np.where(opens, begins[quotes], finishes[quotes + 1])
    bad = quotes[~fine]
    if bad.size:
        return int(bad[0])
    return int(quotes[-1]) if unclosed else None


def cell_text(cells: Cells, start: int, end: int, quoting: bool) -> str:
    """A cell as people read it: decoded, without its quotation marks and outer spaces."""
    text = cells.data[start:end].tobytes().decode("utf-8", errors="replace")
    if quoting and len(text) > 1 and text[0] == text[-1] == '"':
        text = text[1:-1].replace('""', '"').strip(BLANKS)
    return text
