"""Owns the most confident mistakes: where a label and a sure probability say the opposite."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import checked_cells, is_present, known_sides, row_blocks


def confident_mistakes(
    labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike, *, most: int = 24
) -> NDArray[np.int64]:
    """Known cells that are decided wrongly, those first whose probability is farthest from the label.

    Going through them by eye is the quickest way to find wrong labels (cf. Northcutt et al. 2021, "Confident
    learning"). No attribute gets more than its even share while others still have mistakes to show.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        thresholds: [A], or one number for all.
        most: how many at most.

    Returns:
        int64 [K, 2]: row and column of each, the surest first; K <= `most`.

    Raises:
        ValueError, NumericalError: as `known_cells`.
    """
    labels, scores = checked_cells(labels, scores)
    found = [np.empty((2, 0), np.int64)]
    for block in row_blocks(labels.shape):
        present, absent = known_sides(labels[block])
        predicted = is_present(scores[block], thresholds)
        wrong = np.nonzero((present & ~predicted) | (absent & predicted))
        found.append(np.stack([wrong[0] + block.start, wrong[1]]))
    rows, columns = np.concatenate(found, axis=1)
    distance = np.abs(scores[rows, columns].astype(np.float64) - labels[rows, columns])
    order = np.lexsort((columns, rows, -distance))
    rows, columns = rows[order], columns[order]
    turn = np.zeros(len(rows), dtype=np.int64)  # the how-manieth mistake of its attribute
    for column in np.unique(columns):
        own = columns == column
        turn[own] = np.arange(np.count_nonzero(own))
    share = -(-most // max(1, len(np.unique(columns))))
    kept = np.sort(np.argsort(turn >= share, kind="stable")[:most])
    return np.stack([rows[kept], columns[kept]], axis=1).astype(np.int64)
