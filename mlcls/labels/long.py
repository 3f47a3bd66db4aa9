"""Owns long tables, a row an image and label, as Open Images' verified labels: ImageID,Source,LabelName,Confidence."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import TableError
from mlcls.labels.cells import ABSENT, PRESENT
from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.merge import join_cells
from mlcls.labels.numbering import number_values
from mlcls.labels.source import Chunk, Request, Rows, Source, Text, check_cells, find_roles, gather
from mlcls.naming import suggest

LABEL_COLUMN: Final = "labelname"  # in any case
CONFIDENCE_COLUMN: Final = "confidence"


def is_long(source: Source) -> bool:
    """Whether the header has, beside other columns, LabelName and Confidence, in any case."""
    names = [column.lower() for column in source.columns]
    return source.headed and LABEL_COLUMN in names and CONFIDENCE_COLUMN in names and len(names) > 2


def read_long(source: Source, request: Request, faults: Faults) -> Rows:
    """Read a table with a row an image and label: Confidence 1 present, 0 verified absent; what no row says is unknown.

    The rows of an image become one; where they contradict each other the cell is unknown and stands in `conflicts`.
    Attributes are in alphabetical order, or in that of `request.attributes`.

    Raises:
        TableError: a named column does not exist. A Confidence that is neither 0 nor 1 is a fault, as is a row
            without a label's name.
    """
    columns = [column.lower() for column in source.columns]
    label, confidence = columns.index(LABEL_COLUMN), columns.index(CONFIDENCE_COLUMN)
    roles = find_roles(source, request, faults.source)
    if {label, confidence} & set(roles.text):
        raise TableError(
            f"{faults.source}: columns '{source.columns[label]}' and '{source.columns[confidence]}' hold the labels of "
            "this long table; they cannot be --image-column, --split column: or --group-column"
        )
    chunks = list(source.chunks((*roles.text, label), (confidence,), faults))
    lines, text = gather(chunks, len(roles.text) + 1)
    kinds = np.concatenate([np.empty(0, np.uint8), *(chunk.kinds[:, 0] for chunk in chunks)])
    _check(chunks, (source.columns[label], label), (source.columns[confidence], confidence), faults)
    names, subsets, groups = roles.split(text)
    images, found = number_values(names)
    attributes = _attributes(text[-1], request, faults)
    check_cells(len(found), len(attributes), faults.source)
    labels, clash = _spread(images, len(found), text[-1], kinds, attributes)
    unique = np.array(found, dtype=object)
    return Rows(
        names=unique,
        lines=lines[np.unique(images, return_index=True)[1]],
        labels=labels,
        attributes=attributes,
        subsets=None
        if subsets is None
        else join_cells(subsets, images, lines, unique, "--split column:", faults),
        groups=None
        if groups is None
        else join_cells(groups, images, lines, unique, "--group-column", faults),
        layout=f"{source.layout}, a row an image and label, {len(attributes)} attributes",
        count=len(lines),
        metadata=tuple(n for i, n in enumerate(source.columns) if i not in (*roles.text, label, confidence)),
        unmentioned="unknown",
        conflicts={
            str(unique[row]): tuple(attributes[i] for i in np.flatnonzero(clash[row]))
            for row in np.flatnonzero(clash.any(axis=1))
        },
    )


def _check(chunks: list[Chunk], label: tuple[str, int], confidence: tuple[str, int], faults: Faults) -> None:
    """Faults for each Confidence that is neither 0 nor 1 and each row without a label's name."""
    shown = 0
    for chunk in chunks:
        wrong = np.flatnonzero((chunk.kinds[:, 0] != ABSENT) & (chunk.kinds[:, 0] != PRESENT))
        for row in wrong[: SHOWN - shown].tolist():
            text = f"'{chunk.cell(row, 0)}' is neither 0 (verified absent) nor 1 (present)"
            faults.add(int(chunk.lines[row]), text, column=confidence[0], position=confidence[1])
        faults.count(len(wrong) - len(wrong[: SHOWN - shown]))
        shown += len(wrong[: SHOWN - shown])
        for row in np.flatnonzero(chunk.text[-1] == "").tolist():
            faults.add(int(chunk.lines[row]), "the label's name is empty", column=label[0], position=label[1])


def _attributes(cells: Text, request: Request, faults: Faults) -> tuple[str, ...]:
    """The labels seen, or those asked for."""
    seen = sorted(set(cells.tolist()) - {""})
    for name in request.attributes or ():
        if seen and name not in seen:
            raise TableError(
                f"{faults.source}: --attributes: no row has the label '{name}'; {suggest(name, seen)}"
            )
    return tuple(seen) if request.attributes is None else request.attributes


def _spread(
    images: NDArray[np.intp], count: int, cells: Text, kinds: NDArray[np.uint8], attributes: tuple[str, ...]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Labels [count, A] out of rows (image, label, kind), and where [count, A] rows said the opposite."""
    place = {name: column for column, name in enumerate(attributes)}
    columns = np.fromiter((place.get(cell, -1) for cell in cells), np.intp, len(cells))
    present = np.zeros((count, len(attributes)), np.bool_)
    absent = np.zeros_like(present)
    for kind, said in ((PRESENT, present), (ABSENT, absent)):
        rows = (kinds == kind) & (columns >= 0)
        said[images[rows], columns[rows]] = True
    clash = present & absent
    labels = np.full(present.shape, np.nan, np.float32)
    labels[present] = 1.0
    labels[absent] = 0.0
    labels[clash] = np.nan
    return labels, clash
