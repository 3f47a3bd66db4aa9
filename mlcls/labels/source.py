"""Owns what every table gives to the readers of a layout, and what they hand on: columns, chunks of cells, rows."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import is_unknown
from mlcls.labels.faults import Faults
from mlcls.naming import suggest

Text = NDArray[np.object_]  # of str
MOST_CELLS = 1 << 32  # labels of one table: 17 GB


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some rows of a table: n rows, t columns asked for as text, c as labels."""

    lines: NDArray[np.int64]  # [n], 1-based physical line of a file, or row of a frame
    text: tuple[Text, ...]  # t arrays [n] of str without outer spaces
    kinds: NDArray[np.uint8]  # [n, c], kinds of cells.py
    cell: Callable[
        [int, int], str
    ]  # (row of this chunk, index among the c) -> the cell's text, for a message


class Source(Protocol):
    """A table of cells: a text file, a Parquet file or a DataFrame."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns' names, in order."""

    @property
    def headed(self) -> bool:
        """Whether the table itself names its columns."""

    @property
    def unnamed(self) -> frozenset[int]:
        """The columns that a header leaves without a name, as it stands over the row numbers that pandas writes."""

    @property
    def bound(self) -> int:
        """At least as many rows as the chunks bring."""

    @property
    def layout(self) -> str:
        """How the table is written, in words."""

    def chunks(self, text: Sequence[int], labels: Sequence[int], faults: Faults) -> Iterator[Chunk]:
        """The table's rows in order; what is wrong with its form is added to `faults`."""


@dataclass(frozen=True, slots=True)
class Request:
    """Which columns a person asked for, by the flags' names; None where nothing was said."""

    image_column: str | None = None
    names: tuple[str, ...] | None = None
    attributes: tuple[str, ...] | None = None
    tags_column: str | None = None
    tags_separator: str | None = None
    minus_one: str | None = None
    subset_column: str | None = None
    group_column: str | None = None


@dataclass(frozen=True, slots=True)
class Roles:
    """Where the columns stand that are not labels."""

    image: int
    subset: int | None
    group: int | None

    @property
    def text(self) -> tuple[int, ...]:
        """The columns read as text: image, then subset and group where there are such."""
        columns = (self.image, self.subset, self.group if self.group != self.subset else None)
        return tuple(c for c in columns if c is not None)

    def split(self, text: Sequence[Text]) -> tuple[Text, Text | None, Text | None]:
        """Names, subset cells and group cells out of the columns of `self.text`; an unknown group's cell is empty."""
        others = iter(text[1:])
        subsets = None if self.subset is None else next(others)
        if self.group is None:
            return text[0], subsets, None
        cells = subsets if self.group == self.subset and subsets is not None else next(others)
        return text[0], subsets, strip_all(["" if is_unknown(cell) else cell for cell in cells])


@dataclass(frozen=True, slots=True)
class Rows:
    """A table read and not yet joined with its images: N rows, A attributes."""

    names: Text  # [N] as in the table
    lines: NDArray[np.int64]  # [N]
    labels: NDArray[np.float32]  # [N, A]
    attributes: tuple[str, ...]
    subsets: Text | None  # [N]
    groups: Text | None  # [N], "" where unknown
    layout: str
    count: int  # rows of the table itself
    metadata: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()  # as in TableReport
    notes: tuple[str, ...] = ()  # as in TableReport
    unmentioned: str | None = None  # as in TableReport
    conflicts: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  # name -> attributes, where merged already


def find_column(name: str, columns: Sequence[str], flag: str, source: str) -> int:
    """Where the column called `name` stands.

    Raises:
        TableError: there is none; the message names the flag and suggests the nearest.
    """
    if name in columns:
        return list(columns).index(name)
    said = f"{flag}{name}" if flag.endswith(":") else flag  # --split column:NAME
    raise TableError(f"{source}: {said}: the table has no column '{name}'; {suggest(name, list(columns))}")


def check_cells(images: int, attributes: int, source: str) -> None:
    """Refuse labels that no memory holds: a few megabytes can name a million images and as many tags.

    Raises:
        TableError: there are more than `MOST_CELLS`.
    """
    if images * attributes > MOST_CELLS:
        raise TableError(
            f"{source}: {images:,} rows and {attributes:,} attributes are {images * attributes * 4 / 1e9:,.0f} GB of "
            "labels, more than this program takes; choose the attributes with --attributes"
        )


def find_roles(source: Source, request: Request, where: str) -> Roles:
    """The columns that a person named, or their defaults: the first column names the image."""
    columns = source.columns
    image = 0
    if request.image_column is not None:
        image = find_column(request.image_column, columns, "--image-column", where)
    subset = group = None
    if request.subset_column is not None:
        subset = find_column(request.subset_column, columns, "--split column:", where)
    if request.group_column is not None:
        group = find_column(request.group_column, columns, "--group-column", where)
    if image in (subset, group):
        raise TableError(
            f"{where}: column '{columns[image]}' names the images, so it cannot be --split column: or --group-column"
        )
    return Roles(image, subset, group)


def gather(chunks: Sequence[Chunk], columns: int) -> tuple[NDArray[np.int64], list[Text]]:
    """The lines [N] and the text columns [N] of all chunks."""
    lines = np.concatenate([np.empty(0, np.int64), *(chunk.lines for chunk in chunks)])
    return lines, [
        np.concatenate([np.empty(0, dtype=object), *(chunk.text[i] for chunk in chunks)])
        for i in range(columns)
    ]


def strip_all(cells: Sequence[str] | Text, blanks: str | None = None) -> Text:
    """The cells without outer whitespace, or without outer `blanks`, as an object array of str."""
    out = np.empty(len(cells), dtype=object)
    out[:] = [cell.strip(blanks) for cell in cells]
    return out
