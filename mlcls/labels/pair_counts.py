"""Owns the counts of two attributes together: present, absent and unknown of each, over all pairs at once."""

import math
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Independent:
    """What tests rest on: one row of each group of rows that belong together, and the counts of these.

    Images of one person or of one film are no evidence independent of each other: what is constant within them
    goes together by chance far more often than as many unrelated images would.
    """

    rows: NDArray[np.intp]
    counts: PairCounts


def pick_independent(
    labels: NDArray[np.float32], counts: PairCounts, groups: NDArray[np.int64] | None
) -> Independent:
    """The first row of each group; all rows where there are no groups.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        counts: of all rows.
        groups: [N], rows of equal value belong together; None: all are independent.
    """
    if groups is None:
        return Independent(np.arange(len(labels)), counts)
    rows = np.sort(np.unique(groups, return_index=True)[1])
    return Independent(rows, counts if len(rows) == len(labels) else count_pairs(labels[rows]))


def chance_of_agreement(
    counts: PairCounts, first: NDArray[np.intp], second: NDArray[np.intp], agree: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """How likely two attributes that have nothing to do with each other agree as much as these do.

    Args:
        counts: of rows that are independent of each other.
        first, second: [P] attributes of each pair.
        agree: [P] True for how likely they say the same, False for how likely they say the opposite.

    Returns:
        float64 [P], at least the hypergeometric tail (Fisher's one-sided test): the probability of the table as
        it is, times the number of tables with these margins that agree as much or more. None of them is likelier
        where the two go together at all; elsewhere 1.
    """
    kinds = (counts.present_present, counts.present_absent, counts.absent_present, counts.absent_absent)
    cells = np.stack([kind[first, second] for kind in kinds])
    both, one, other, neither = np.where(agree, cells, cells[[1, 0, 3, 2]])  # the second turned round
    margins = np.stack([both + one, both + other, one + neither, other + neither])
    log = log_factorial(*margins) - log_factorial(*cells) - log_factorial(cells.sum(axis=0))
    bound = np.exp(np.minimum(log + np.log(np.minimum(one, other) + 1), 0))
    return np.where(both * neither > one * other, bound, 1.0)


def log_factorial(*numbers: NDArray[Any]) -> NDArray[np.float64]:
    """The sum over these arrays [P] of the logarithms of their factorials, [P]."""
    every = np.stack(numbers)
    # SciPy's is faster, but its import takes longer than the few pairs that are asked for
    logs = np.array([math.lgamma(number + 1) for number in every.ravel().tolist()])
    return np.asarray(logs.reshape(every.shape).sum(axis=0), dtype=np.float64)
