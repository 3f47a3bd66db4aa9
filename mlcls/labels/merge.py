"""Owns rows that name one image several times: they become one row, and what they contradict becomes unknown."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.faults import SHOWN, Faults
from mlcls.labels.numbering import number_values

Text = NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class Merged:
    """Rows of different images, in the order of their first rows."""

    first: NDArray[np.intp]  # [M] the row where each image stands first
    codes: NDArray[np.intp]  # [N] which of the M images each row names
    labels: NDArray[np.float32]  # [M, A]
    repeated: NDArray[np.intp]  # which of the M stand in several rows
    clash: NDArray[np.bool_]  # [len(repeated), A] where those say the opposite


def merge_rows(images: Text, labels: NDArray[np.float32]) -> Merged:
    """Merge rows of one image: what one knows and the other does not is known; the opposite makes it unknown.

    Args:
        images: [N] str.
        labels: float32 [N, A], NaN unknown; not changed, but handed back as it is where no image is repeated.
    """
    rows = np.arange(len(images))
    if len(set(images.tolist())) == len(images):
        return Merged(rows, rows, labels, rows[:0], np.zeros((0, labels.shape[1]), np.bool_))
    codes, unique = number_values(images)
    counts = np.bincount(codes, minlength=len(unique))
    repeated = np.flatnonzero(counts > 1)
    first = np.unique(codes, return_index=True)[1]
    rows = np.flatnonzero(counts[codes] > 1)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(counts[repeated])[:-1]])
    present = np.logical_or.reduceat(labels[rows] == 1, starts, axis=0)
    absent = np.logical_or.reduceat(labels[rows] == 0, starts, axis=0)
    clash = present & absent
    merged = np.full(clash.shape, np.nan, np.float32)
    merged[present] = 1.0
    merged[absent] = 0.0
    merged[clash] = np.nan
    out = labels[first]
    out[repeated] = merged
    return Merged(first, codes, out, repeated, clash)


def join_cells(
    cells: Text, codes: NDArray[np.intp], lines: NDArray[np.int64], images: Text, flag: str, faults: Faults
) -> Text:
    """One cell [M] an image out of the cells [N] of its rows; two that differ are a fault.

    Args:
        codes: [N] which of the M images each row names.
        images: [M] their names, for the message.
        flag: what the column is for, e.g. `--group-column`.
    """
    joined = np.full(len(images), "", dtype=object)
    said = np.flatnonzero(cells != "")
    which, first = np.unique(codes[said], return_index=True)
    joined[which] = cells[said[first]]
    line = np.zeros(len(images), np.int64)
    line[which] = lines[said[first]]
    differ = said[cells[said] != joined[codes[said]]]
    for row in differ[:SHOWN].tolist():
        image = codes[row]
        faults.add(
            int(lines[row]),
            f"'{images[image]}' has '{cells[row]}' for {flag} here and '{joined[image]}' in "
            f"{faults.unit} {line[image]}; give an image one",
        )
    faults.count(max(0, len(differ) - SHOWN))
    return joined
