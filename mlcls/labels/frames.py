"""Owns reading a DataFrame or a Parquet file: the same columns and chunks as a text table gives."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import kind_of
from mlcls.labels.faults import Faults
from mlcls.labels.lines import open_table
from mlcls.labels.source import Chunk, strip_all

if TYPE_CHECKING:
    import pandas as pd

CHUNK: Final = 1 << 16  # rows
MAGIC: Final = b"PAR1"

# What pyarrow raises on bytes that are no Parquet, and pandas on what they say of its own types.
_DAMAGED: Final = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, AssertionError, NotImplementedError, RecursionError, MemoryError),
)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """A table of typed columns. See `source.Source`; a row is counted from 1."""

    name: str
    columns: tuple[str, ...]
    bound: int
    frames: "Callable[[], Iterator[pd.DataFrame]]"
    layout: str
    headed: bool = True
    unnamed: frozenset[int] = frozenset()

    def chunks(self, text: Sequence[int], labels: Sequence[int], faults: Faults) -> Iterator[Chunk]:
        """The rows of each frame. Missing values (None, NaN, pandas' NA) are empty cells."""
        row = 1
        for frame in self.frames():
            words = [_code_column(frame.iloc[:, column]) for column in labels]
            kinds = [np.array([kind_of(word) for word in words_], np.uint8)[codes] for codes, words_ in words]

            def cell(row: int, index: int, words: "list[Coded]" = words) -> str:
                codes, words_ = words[index]
                return words_[int(codes[row])]

            yield Chunk(
                lines=np.arange(row, row + len(frame), dtype=np.int64),
                text=tuple(_text_column(frame.iloc[:, column]) for column in text),
                kinds=np.stack(kinds, axis=1) if kinds else np.empty((len(frame), 0), np.uint8),
                cell=cell,
            )
            row += len(frame)


Coded = tuple[NDArray[np.intp], list[str]]


def _code_column(column: "pd.Series[Any]") -> Coded:
    """A column as codes [n] into its different cells' texts, the last of which is empty: code -1 is a missing value."""
    import pandas as pd

    try:
        codes, values = pd.factorize(column)
    except TypeError:  # lists and other values without a hash
        codes, values = pd.factorize(pd.Series(_text_column(column), dtype=object))
    return codes, [*map(_cell_text, values), ""]


def _text_column(column: "pd.Series[Any]") -> NDArray[np.object_]:
    """A column's cells as text; a list, a tuple, a set or an array as a list literal."""
    missing = column.isna().to_numpy(dtype=bool)
    cells = column.to_numpy(dtype=object)
    return strip_all(["" if gone else _cell_text(cell) for cell, gone in zip(cells, missing, strict=True)])


def _cell_text(cell: Any) -> str:
    if isinstance(cell, list | tuple | set | frozenset | np.ndarray):
        return str([str(item) for item in cell])
    return str(cell).strip()


def is_frame(table: object) -> "TypeGuard[pd.DataFrame]":
    """Whether it is a DataFrame; without importing pandas, which who has one has imported."""
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(table, pandas.DataFrame)


def file_of(table: "str | os.PathLike[str] | pd.DataFrame") -> str | None:
    """The path of a table that is a file, as it was given; None for a DataFrame."""
    return None if is_frame(table) else os.fspath(cast("str | os.PathLike[str]", table))


def open_frame(frame: "pd.DataFrame") -> FrameTable:
    """A DataFrame as a table; an index that has a name becomes the first column, as it stands in print."""
    flat = _flatten(frame)

    def frames() -> "Iterator[pd.DataFrame]":
        for start in range(0, len(flat), CHUNK):
            yield flat.iloc[start : start + CHUNK]

    return FrameTable("DataFrame", tuple(map(str, flat.columns)), len(flat), frames, "a DataFrame")


def _flatten(frame: "pd.DataFrame") -> "pd.DataFrame":
    named = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(level=named) if named else frame


def is_parquet(path: Path) -> bool:
    """Whether the file calls itself Parquet, or begins and ends as one does."""
    if path.suffix.lower() in (".parquet", ".pq"):
        return True
    with open_table(path) as file:
        if file.read(4) != MAGIC or path.stat().st_size < 12:
            return False
        file.seek(-4, 2)
        return file.read(4) == MAGIC


def open_parquet(path: Path) -> FrameTable:
    """A Parquet file as a table, read a batch of rows at a time.

    Raises:
        TableError: pyarrow is not installed, or the file is not Parquet.
    """
    open_table(path).close()  # absent, a folder, unreadable: the same messages as for text
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise TableError(
            f'{path}: reading Parquet needs pyarrow; run: pip install "mlcls[parquet]", or save the table as CSV'
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            columns = tuple(map(str, _flatten(file.schema_arrow.empty_table().to_pandas()).columns))
    except (pa.ArrowException, *_DAMAGED) as error:
        raise TableError(f"{path}: not a Parquet file that can be read: {error}") from error

    def frames() -> "Iterator[pd.DataFrame]":
        try:
            with parquet.ParquetFile(path) as file:
                for batch in file.iter_batches(CHUNK):
                    yield _flatten(batch.to_pandas())
        except (pa.ArrowException, *_DAMAGED) as error:
            raise TableError(f"{path}: the Parquet file is damaged: {error}") from error

    return FrameTable(str(path), columns, rows, frames, "Parquet")
