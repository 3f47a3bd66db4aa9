"""Owns what thresholds are chosen from: the known cells of each attribute, and the images that are drawn together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, known_cells, row_blocks
from mlcls.scoring.optima import IntArray, Side, side


@dataclass(frozen=True, slots=True)
class Known:
    """What thresholds are chosen from.

    Attributes:
        scores: [N, A] probabilities.
        present, absent: bool [N, A]; a cell in neither is unknown.
        units: int64 [N], 0 to U - 1: the image, or the group of images, that each row belongs to.
        rows: bool [N], which rows take part; None: all.
    """

    scores: NDArray[Any]
    present: BoolArray
    absent: BoolArray
    units: IntArray
    rows: BoolArray | None = None

    def sides(self, column: int) -> tuple[Side, Side]:
        """The known positives and negatives of one attribute."""
        scores, *cells = (
            np.ascontiguousarray(one[:, column]) for one in (self.scores, self.present, self.absent)
        )
        positive, negative = (side(scores, self._taking_part(one), self.units) for one in cells)
        return positive, negative

    def counts(self) -> tuple[IntArray, IntArray]:
        """The known positives and negatives of each attribute, [A] each."""
        totals = np.zeros((2, self.scores.shape[1]), dtype=np.int64)
        for rows in row_blocks(self.scores.shape):
            for number, cells in enumerate((self.present[rows], self.absent[rows])):
                totals[number] += (cells if self.rows is None else cells[self.rows[rows]]).sum(axis=0)
        return totals[0], totals[1]

    def without(self, rows: BoolArray) -> "Known":
        """The same without these rows, [N]."""
        return replace(self, rows=self._taking_part(~rows))

    def _taking_part(self, cells: BoolArray) -> BoolArray:
        return cells if self.rows is None else cells & self.rows


def unit_numbers(groups: Sequence[Any] | ArrayLike | None, rows: int) -> IntArray:
    """Numbers of the units that are resampled and folded whole: rows where `groups` is None.

    Raises:
        ValueError: there is not one group for each row.
    """
    if groups is None:
        return np.arange(rows)
    names = np.asarray(groups)
    if names.shape != (rows,):
        raise ValueError(f"groups must be [{rows}], one for each image; got {names.shape}")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def read_known(
    labels: ArrayLike, scores: ArrayLike, groups: Sequence[Any] | ArrayLike | None = None
) -> Known:
    """Labels [N, A] (NaN unknown), probabilities [N, A] and groups [N], checked.

    Raises:
        ValueError: shapes that do not fit, a label other than 0, 1 and NaN, a score outside [0, 1].
        NumericalError: a score is NaN.
    """
    scores, present, absent = known_cells(labels, scores)
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"scores must be probabilities in [0, 1]; got {scores.min()} to {scores.max()}")
    return Known(scores, present, absent, unit_numbers(groups, len(scores)))
