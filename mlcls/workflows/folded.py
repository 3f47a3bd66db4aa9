"""The images of a run of folds: which fold each is in, and what each member trains and is validated on."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.split import Split
from mlcls.reports.record import SplitCounts
from mlcls.workflows.data import LabelledImages


@dataclass(frozen=True)
class Folded:
    """The images of a run of folds.

    Attributes:
        data: with the split that the recipe asks for; its training and validation rows together are in the folds.
        rows: int [n], these rows, in the table's order.
        of_row: int64 [n], the fold of each.
        names: of the folds, and of the members that are validated on them.
        notes: what some fold lacks.
    """

    data: LabelledImages
    rows: NDArray[np.intp]
    of_row: NDArray[np.int64]
    names: tuple[str, ...]
    notes: tuple[str, ...]

    def fold(self, number: int) -> NDArray[np.intp]:
        """The rows of a fold."""
        rows: NDArray[np.intp] = self.rows[self.of_row == number]
        return rows

    def member(self, number: int) -> LabelledImages:
        """The images as a member meets them: validated on its fold, trained on the others, the test subset the same."""
        split = Split(self.rows[self.of_row != number], self.fold(number), self.data.split.test)
        counts = SplitCounts(len(split.train), len(split.val), len(split.test))
        return dataclasses.replace(
            self.data, split=split, facts=dataclasses.replace(self.data.facts, split=counts)
        )
