"""Owns `read_table`: from a file or a DataFrame to the images that exist and their labels, NaN where unknown."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError, TableError
from mlcls.labels.cells import kind_values
from mlcls.labels.coco import COCO_LAYOUT
from mlcls.labels.combine import combine_tables
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.frames import file_of
from mlcls.labels.label_table import LabelTable, TableReport
from mlcls.labels.layouts import read_rows
from mlcls.labels.locate import ImageFolder, images_folder
from mlcls.labels.merge import Merged, join_cells, merge_rows
from mlcls.labels.source import Request, Rows
from mlcls.naming import find_refused

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["LabelTable", "TableReport", "combine_tables", "read_table"]


def read_table(
    path: "str | os.PathLike[str] | DataFrame",
    images_dir: str | os.PathLike[str] | None = None,
    *,
    image_column: str | None = None,
    names: Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
    tags_column: str | None = None,
    tags_separator: str | None = None,
    minus_one: str | None = None,
    subset_column: str | None = None,
    group_column: str | None = None,
    max_missing: float = 0.1,
) -> LabelTable:
    """Read a label table and find its images.

    Args:
        path: a text table (whitespace, comma, semicolon, tab or | between cells), COCO json, Parquet, or a DataFrame.
        images_dir: the folder that names are relative to; else `images/` beside the table, else the table's folder
            (for a DataFrame: the working folder).
        image_column: names the image; else the first column.
        names: the columns of a table without a header: the labels' alone, or the image's and the labels'.
        attributes: the columns (tags, categories) to read as labels, in this order; else all that hold labels.
        tags_column: the column of tags in a table that has one instead of a column an attribute.
        tags_separator: what stands between tags; else found out (comma, semicolon, |, whitespace, list literals).
        minus_one: what -1 means: `absent` or `unknown`; needed where a table has -1 and not one 0.
        subset_column: the column that says train, val or test; becomes `subsets`.
        group_column: the column whose equal cells bind rows together; becomes `groups`.
        max_missing: the share of rows, 0 to 1, whose image may be missing.

    Raises:
        TableError: the table is not what it should be; every fault is in the one message, the first 20 by line and
            column. Also where more than `max_missing` of the rows have no image.
        RecipeError: a flag has a value that cannot be, or `tags_separator` stands without `tags_column`.
    """
    kind_values(minus_one)
    if not 0 <= max_missing <= 1:
        raise RecipeError(f"max_missing: {max_missing} is not a share of rows; expected 0 to 1")
    if tags_separator is not None and tags_column is None:
        raise RecipeError("--tags-separator: which column holds the tags? Say so with --tags-column")
    request = Request(
        image_column,
        _several(names, "--names"),
        _several(attributes, "--attributes"),
        tags_column,
        tags_separator,
        minus_one,
        subset_column,
        group_column,
    )
    file = file_of(path)
    faults = Faults("DataFrame" if file is None else file)
    folder = ImageFolder(images_folder(images_dir, Path() if file is None else Path(file).parent))
    rows = read_rows(path, request, lambda name: folder.find_quietly(name) is not None, faults)
    folder = _choose_folder(folder, rows, given=images_dir is not None)
    found = _find_images(rows, folder, faults)
    faults.check()
    if not rows.count:
        raise TableError(f"{faults.source}: no rows; expected one an image: its name, then its labels")
    return _assemble(rows, found, folder, faults, max_missing)


def _several(values: Sequence[str] | None, flag: str) -> tuple[str, ...] | None:
    """Names of columns, each once; one string is a list with commas, as the flag is written."""
    if values is None:
        return None
    several = (
        tuple(v.strip() for v in values.split(",")) if isinstance(values, str) else tuple(map(str, values))
    )
    twice = sorted({name for name in several if several.count(name) > 1})
    if twice or not several or not all(several):
        problem = f"'{twice[0]}' stands twice" if twice else "an empty name" if several else "no name"
        raise RecipeError(f"{flag}: {problem}; give different names with commas between them")
    return several


def _choose_folder(folder: ImageFolder, rows: Rows, given: bool) -> ImageFolder:
    """For a COCO json beside `images/`, that folder or the json's own: whichever has more of its first images."""
    if given or not rows.layout.startswith(COCO_LAYOUT) or folder.path.name != "images":
        return folder
    own = ImageFolder(folder.path.parent)
    first = rows.names[:100].tolist()
    hits = [sum(place.find_quietly(name) is not None for name in first) for place in (folder, own)]
    return own if hits[1] > hits[0] else folder


def _find_images(rows: Rows, folder: ImageFolder, faults: Faults) -> NDArray[np.object_]:
    """The image [N] that each row names, None where it is missing; a name that is refused is a fault."""
    found = np.empty(len(rows.names), dtype=object)
    refused = 0
    for row, name in enumerate(rows.names.tolist()):
        try:
            if not name:
                raise ValueError("the image's name is empty")
            if refused_character := find_refused(name):
                raise ValueError(f"'{name}' holds {refused_character}, which no image's name may hold")
            found[row] = folder.find(name)
        except ValueError as error:
            refused += 1
            if refused <= SHOWN:
                faults.add(int(rows.lines[row]), str(error))
    faults.count(max(0, refused - SHOWN))
    return found


def _assemble(
    rows: Rows, found: NDArray[np.object_], folder: ImageFolder, faults: Faults, max_missing: float
) -> LabelTable:
    """The table of the images that exist, each in one row."""
    there = found != None  # noqa: E711 - elementwise
    _check_missing(rows, there, folder, faults, max_missing)
    missing = tuple(dict.fromkeys(rows.names[~there].tolist()))
    every = bool(there.all())
    labels = rows.labels if every else rows.labels[there]
    images = found if every else found[there]
    merged = merge_rows(images, labels)
    unique = images[merged.first]
    lines = rows.lines[there]
    subsets = groups = None
    if rows.subsets is not None:
        subsets = join_cells(rows.subsets[there], merged.codes, lines, unique, "--split column:", faults)
    if rows.groups is not None:
        groups = own_groups(
            join_cells(rows.groups[there], merged.codes, lines, unique, "--group-column", faults), unique
        )
    faults.check()
    conflicts = _conflicts(rows, merged, unique, folder)
    return LabelTable(
        images=unique,
        labels=merged.labels,
        attributes=rows.attributes,
        images_dir=folder.path,
        subsets=subsets,
        groups=groups,
        report=TableReport(
            source=faults.source,
            layout=rows.layout,
            rows=rows.count,
            missing=missing,
            repeated=tuple(unique[merged.repeated].tolist()),
            conflicts=tuple(conflicts),
            conflict_attributes=conflicts,
            metadata=rows.metadata,
            left_out=rows.left_out,
            unknown=rows.unknown,
            notes=rows.notes,
            unmentioned=rows.unmentioned,
        ),
    )


def _check_missing(
    rows: Rows, there: NDArray[np.bool_], folder: ImageFolder, faults: Faults, max_missing: float
) -> None:
    """Raise where more than the allowed share of the rows, or all of them, have no image."""
    gone = int(np.count_nonzero(~there))
    if gone <= max_missing * len(there) and gone < len(there):
        return
    first = list(dict.fromkeys(rows.names[~there].tolist()))[:5]
    cause = folder.explain_missing(first) or (
        "see --images, the folder that the names are relative to"
        if any("." in name for name in first) or rows.layout.startswith(COCO_LAYOUT)
        else f"see --images, and --image-column where another column names the images{_other_columns(rows)}"
    )
    raise TableError(
        f"{faults.source}: {gone:,} of {len(there):,} rows have no image in {folder.path.absolute()} "
        f"({', '.join(map(repr, first))}{', ...' if gone > len(first) else ''}); {cause}"
    )


def _other_columns(rows: Rows) -> str:
    """The table's columns that could name the images, in parentheses; the labels of a long table are no columns."""
    columns = [*rows.metadata, *(rows.attributes if rows.unmentioned is None else ())][:5]
    return f" ({', '.join(columns)})" if columns else ""


def own_groups(cells: NDArray[np.object_], images: NDArray[np.object_]) -> NDArray[np.object_]:
    """Group cells [N] where an empty one becomes a group of its own.

    Such a group is called NUL and the image's name: no cell of a text file holds a NUL, so it meets no other.
    """
    out = np.empty(len(cells), dtype=object)
    out[:] = [cell or f"\0{image}" for cell, image in zip(cells, images, strict=True)]
    return out


def _conflicts(
    rows: Rows, merged: Merged, images: NDArray[np.object_], folder: ImageFolder
) -> dict[str, tuple[str, ...]]:
    """Images whose rows contradict each other, and in which attributes."""
    conflicts = {
        str(images[row]): tuple(name for name, clash in zip(rows.attributes, clashes, strict=True) if clash)
        for row, clashes in zip(merged.repeated.tolist(), merged.clash, strict=True)
        if clashes.any()
    }
    for name, attributes in rows.conflicts.items():  # found by a reader that merged rows itself
        if image := folder.find(name):
            conflicts[image] = tuple(dict.fromkeys((*conflicts.get(image, ()), *attributes)))
    return conflicts
