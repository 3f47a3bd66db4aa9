"""Owns tables of their own for validation and test: joined with the first into one, subsets kept."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.label_table import LabelTable, TableReport

SUBSETS: Final = ("train", "val", "test")  # an image of several tables stays in the last
FLAGS: Final = {"train": "--labels", "val": "--val-labels", "test": "--test-labels"}


def combine_tables(tables: Mapping[str, LabelTable]) -> LabelTable:
    """One table of those for `train`, `val` and `test`; `subsets` says which each image came from.

    Where the tables' images are in different folders, names are relative to the folder that holds them all, so that
    equal names in two folders stay two images. An image of several tables is kept in the last of train, val, test
    alone, and told in the report as `shared`. An attribute of the first table that a table of tags, a long table or a
    COCO json does not mention gets what not being mentioned means there (absent; unknown in a long table).

    Raises:
        TableError: a table has other attributes than the first, or not one image that no later table has.
    """
    kept = {subset: tables[subset] for subset in SUBSETS if subset in tables}
    if set(tables) - set(SUBSETS) or not kept:
        raise TableError(
            f"tables for {', '.join(map(repr, tables)) or 'nothing'}; expected some of train, val, test"
        )
    first = next(iter(kept.values()))
    root = _common_folder(kept)
    images = {subset: _with_folder(table, root, table.images) for subset, table in kept.items()}
    labels = {subset: _like_first(first, table, subset) for subset, table in kept.items()}
    later: set[str] = set()
    shared: list[str] = []
    rows: dict[str, NDArray[np.bool_]] = {}
    for subset in reversed(kept):
        rows[subset] = np.array([image not in later for image in images[subset]], np.bool_)
        shared = [*images[subset][~rows[subset]].tolist(), *shared]
        if len(rows[subset]) and not rows[subset].any():
            _refuse_emptied(subset, images)
        later.update(images[subset].tolist())
    return LabelTable(
        images=np.concatenate([images[s][rows[s]] for s in kept]),
        labels=np.concatenate([labels[s][rows[s]] for s in kept]),
        attributes=first.attributes,
        images_dir=root,
        subsets=np.concatenate([np.full(int(rows[s].sum()), s, dtype=object) for s in kept]),
        groups=_groups(kept, images, rows),
        report=_report(kept, root, tuple(dict.fromkeys(shared))),
    )


def _refuse_emptied(subset: str, images: Mapping[str, NDArray[np.object_]]) -> None:
    """Raise the TableError of a table whose every image stands in later ones: no row of it would be left."""
    own = set(images[subset].tolist())
    later = [s for s in SUBSETS[SUBSETS.index(subset) + 1 :] if s in images and own & set(images[s].tolist())]
    flags = " or ".join(FLAGS[s] for s in later)
    remedy = f"leave {' and '.join(FLAGS[s] for s in later)} out"
    if subset == "train":
        remedy += f", or give {FLAGS[subset]} images of its own"
    raise TableError(f"every image of {FLAGS[subset]} also stands in {flags}; {remedy}")


def _common_folder(tables: Mapping[str, LabelTable]) -> Path:
    """The folder of all the tables' images: theirs if it is one, else the nearest that holds them all."""
    folders = {os.path.abspath(table.images_dir) for table in tables.values()}
    if len(folders) == 1:
        return next(iter(tables.values())).images_dir
    try:
        return Path(os.path.commonpath(folders))
    except ValueError as error:  # two drives
        raise TableError(f"the tables' images share no folder: {', '.join(sorted(folders))}") from error


def _prefix(table: LabelTable, root: Path) -> str:
    """What stands before the table's names when they are relative to `root`: "" or a folder and `/`."""
    folder = Path(os.path.relpath(os.path.abspath(table.images_dir), os.path.abspath(root))).as_posix()
    return "" if folder == "." else f"{folder}/"


def _with_folder(table: LabelTable, root: Path, names: NDArray[np.object_]) -> NDArray[np.object_]:
    prefix = _prefix(table, root)
    out = np.empty(len(names), dtype=object)
    out[:] = [f"{prefix}{name}" for name in names]
    return out


def _like_first(first: LabelTable, table: LabelTable, subset: str) -> NDArray[np.float32]:
    """The table's labels with the first table's attributes in their order."""
    if table.attributes == first.attributes:
        return table.labels
    unmentioned = table.report.unmentioned
    other = [name for name in table.attributes if name not in first.attributes]
    absent = [name for name in first.attributes if name not in table.attributes]
    if set(absent) <= set(table.report.unknown):  # its columns are there, without a known label
        absent, unmentioned = [], unmentioned or "unknown"
    if other or (absent and unmentioned is None):
        raise TableError(
            f"{FLAGS[subset]} {table.report.source}: other attributes than the first table's: "
            f"{', '.join(table.attributes)}; expected those of {first.report.source}: {', '.join(first.attributes)}"
        )
    labels = np.full(
        (len(table.images), len(first.attributes)), 0.0 if unmentioned == "absent" else np.nan, np.float32
    )
    for column, name in enumerate(table.attributes):
        labels[:, first.attributes.index(name)] = table.labels[:, column]
    return labels


def _groups(
    tables: Mapping[str, LabelTable],
    images: Mapping[str, NDArray[np.object_]],
    rows: Mapping[str, NDArray[np.bool_]],
) -> NDArray[np.object_] | None:
    """The groups of all, where a table has such; rows of tables without are groups of their own."""
    if all(table.groups is None for table in tables.values()):
        return None
    groups = []
    for subset, table in tables.items():
        own = np.array([f"\0{image}" for image in images[subset]], dtype=object)
        if table.groups is not None:
            alone = np.array([group.startswith("\0") for group in table.groups], np.bool_)
            own = np.where(alone, own, table.groups)
        groups.append(own[rows[subset]])
    return np.concatenate(groups)


def _report(tables: Mapping[str, LabelTable], root: Path, shared: tuple[str, ...]) -> TableReport:
    """What reading all of them found, names with their folder."""
    missing: list[str] = []
    repeated: list[str] = []
    conflicts: dict[str, tuple[str, ...]] = {}
    for table in tables.values():
        prefix, report = _prefix(table, root), table.report
        missing += [f"{prefix}{name}" for name in report.missing]
        repeated += [f"{prefix}{name}" for name in report.repeated]
        conflicts |= {f"{prefix}{name}": where for name, where in report.conflict_attributes.items()}
    reports = {subset: table.report for subset, table in tables.items()}
    return TableReport(
        source="; ".join(f"{subset}: {report.source}" for subset, report in reports.items()),
        layout=_layouts({subset: report.layout for subset, report in reports.items()}),
        rows=sum(report.rows for report in reports.values()),
        missing=tuple(missing),
        repeated=tuple(repeated),
        conflicts=tuple(conflicts),
        conflict_attributes=conflicts,
        metadata=tuple(dict.fromkeys(name for report in reports.values() for name in report.metadata)),
        left_out=tuple(dict.fromkeys(name for report in reports.values() for name in report.left_out)),
        unknown=tuple(dict.fromkeys(name for report in reports.values() for name in report.unknown)),
        notes=tuple(
            f"{FLAGS[subset]}: {note}" for subset, report in reports.items() for note in report.notes
        ),
        shared=shared,
        unmentioned=next(iter(reports.values())).unmentioned,
    )


def _layouts(layouts: Mapping[str, str]) -> str:
    """Each table's layout, or the one that all have."""
    if len(set(layouts.values())) == 1:
        return f"each with {next(iter(layouts.values()))}"
    return "; ".join(f"{subset}: {layout}" for subset, layout in layouts.items())
