"""Owns the counts of two attributes together: present, absent and unknown of each, over all pairs at once."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.missing import split_missing

BLOCK = 1 << 15  # rows at a time: float32 counts them exactly, and no copy of a large matrix is made


@dataclass(frozen=True, slots=True)
class PairCounts:
    """How many rows, float64 [A, A]: the first word is about attribute i (row), the second about j (column)."""

    present_present: NDArray[np.float64]
    present_absent: NDArray[np.float64]
    absent_present: NDArray[np.float64]
    absent_absent: NDArray[np.float64]
    unknown_present: NDArray[np.float64]
    unknown_absent: NDArray[np.float64]


def count_pairs(labels: NDArray[np.float32]) -> PairCounts:
    """Count in one pass over the rows, by products of 0-1 matrices.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
    """
    count = labels.shape[1]
    total = np.zeros((3 * count, 2 * count))
    for start in range(0, len(labels), BLOCK):
        values, known = split_missing(labels[start : start + BLOCK])
        marks = np.concatenate([values == 1, known & (values == 0), ~known], axis=1).astype(np.float32)
        total += marks.T @ marks[:, : 2 * count]
    present, absent, unknown = total[:count], total[count : 2 * count], total[2 * count :]
    return PairCounts(
        present_present=present[:, :count],
        present_absent=present[:, count:],
        absent_present=absent[:, :count],
        absent_absent=absent[:, count:],
        unknown_present=unknown[:, :count],
        unknown_absent=unknown[:, count:],
    )
