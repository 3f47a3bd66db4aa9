"""Owns the choice of a reader: which kind of file a table is, and which of the layouts its columns have."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mlcls.errors import TableError
from mlcls.labels.coco import is_coco, read_coco
from mlcls.labels.faults import Faults
from mlcls.labels.frames import file_of, is_frame, is_parquet, open_frame, open_parquet
from mlcls.labels.long import is_long, read_long
from mlcls.labels.source import Request, Rows, Source
from mlcls.labels.tags import read_tags
from mlcls.labels.text import open_text
from mlcls.labels.wide import read_wide
from mlcls.naming import find_refused

if TYPE_CHECKING:
    from pandas import DataFrame


def read_rows(
    table: "str | os.PathLike[str] | DataFrame",
    request: Request,
    exists: Callable[[str], bool],
    faults: Faults,
) -> Rows:
    """The rows of a table of any kind and layout.

    Args:
        exists: whether a name is an existing image: a first row that begins with one is no header.

    Raises:
        TableError: the table cannot be read at all, or a column that was named does not exist.
    """
    rows = _read(table, request, exists, faults)
    _check_names(rows.attributes, faults)
    return rows


def _check_names(attributes: tuple[str, ...], faults: Faults) -> None:
    """Attributes that no file and no terminal should be given, or that a table of predictions could not tell apart.

    There an image's row has `image`, then NAME and NAME_probability of each attribute; or `error`.
    """
    remedy = "give it another name in the table, or choose the attributes with --attributes"
    for name in attributes:
        if refused := find_refused(name):
            faults.add(0, f"the attribute '{name}' holds {refused}, which no name may hold; {remedy}")
        if name in ("image", "error"):
            faults.add(
                0,
                f"the attribute '{name}' is called as a column that predictions have of their own; {remedy}",
            )
        if f"{name}_probability" in attributes:
            faults.add(
                0,
                f"the attribute '{name}_probability' is called as the column that predictions have for the "
                f"probability of '{name}'; {remedy}",
            )


def _read(
    table: "str | os.PathLike[str] | DataFrame",
    request: Request,
    exists: Callable[[str], bool],
    faults: Faults,
) -> Rows:
    file = file_of(table)
    if file is not None and is_coco(Path(file)):
        return read_coco(Path(file), request, faults)
    source = open_source(table, request, exists, faults)
    for name, count in Counter(source.columns).items():
        if refused := find_refused(name):
            faults.add(0, f"the column '{name}' holds {refused}, which no name may hold")
        if count > 1:
            faults.add(
                0, f"the header has the column '{name}' {count} times; give every column a name of its own"
            )
    if request.tags_column is not None:
        return read_tags(source, request, faults)
    return read_long(source, request, faults) if is_long(source) else read_wide(source, request, faults)


def open_source(
    table: "str | os.PathLike[str] | DataFrame",
    request: Request,
    exists: Callable[[str], bool],
    faults: Faults,
) -> Source:
    """The table as columns and chunks of cells.

    Raises:
        TableError: it cannot be read, or has fewer than two columns.
    """
    file = file_of(table)
    if file is not None and not is_parquet(Path(file)):
        return open_text(Path(file), request, exists)
    source = open_frame(table) if is_frame(table) else open_parquet(Path(file or ""))
    faults.unit = "row"
    if request.names is not None:
        raise TableError(
            f"{faults.source}: --names is for a table without a header; rename its columns instead"
        )
    if len(source.columns) < 2:
        raise TableError(f"{faults.source}: fewer than two columns; expected an image's name and its labels")
    return source
