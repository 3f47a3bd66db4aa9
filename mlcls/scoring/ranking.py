"""Owns average precision and AUROC: of one attribute, and of all known cells of a matrix of any size as one pool."""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.scoring.cells import known_sides, row_blocks

FloatArray = NDArray[np.float64]
Sides = tuple[NDArray[Any], NDArray[Any]]  # scores of known positives and of known negatives

BLOCK = 1 << 18  # positives looked up at a time
PART = 1 << 23  # cells of the pool sorted at a time, or a quarter of them where that is more
PARTS = 4
SAMPLE = 1 << 16  # cells that say where to part them


def column_rankings(labels: NDArray[Any], scores: NDArray[Any]) -> FloatArray:
    """Average precision and AUROC of each attribute, [A, 2]; NaN without both a known positive and a negative.

    Args:
        labels, scores: [N, A], as `cells.checked_cells` gives them.

    Raises:
        ValueError: a label is neither 0, 1 nor NaN.
    """
    found = np.empty((scores.shape[1], 2))
    for column in range(scores.shape[1]):
        present, absent = known_sides(labels[:, column])
        one = scores[:, column]
        sides = one[present], one[absent]
        found[column] = _rank([sides], *map(len, sides))
    return found


def pooled_ranking(
    labels: NDArray[Any], scores: NDArray[Any], positive: int, negative: int
) -> tuple[float, float]:
    """Average precision and AUROC of all known cells as one pool; NaN both without both classes.

    A large pool is never whole in memory: it is parted by score, and one part after the other is sorted.

    Args:
        labels, scores: as in `column_rankings`.
        positive, negative: how many cells are known to be so.
    """
    return _rank(_parts(labels, scores, positive + negative), positive, negative)


def _rank(parts: Iterable[Sides], positive: int, negative: int) -> tuple[float, float]:
    """The figures of scores that come in parts, each of them above those before it.

    Sorting the two sides apart needs no index array, and equal scores need no care: each positive looks up
    how many of either side lie at or above it.
    """
    if not positive or not negative:
        return float("nan"), float("nan")
    precision, wins, hits_below, misses_below = 0.0, 0, 0, 0
    for positives, negatives in parts:
        positives.sort()
        negatives.sort()
        for start in range(0, len(positives), BLOCK):
            block = positives[start : start + BLOCK]
            below = misses_below + np.searchsorted(negatives, block, side="left")
            tp = positive - hits_below - np.searchsorted(positives, block, side="left")
            precision += float((tp / (tp + (negative - below))).sum())
            tied_too = np.searchsorted(negatives, block, side="right")
            wins += int(below.sum()) + int(tied_too.sum()) + misses_below * len(block)
        hits_below += len(positives)
        misses_below += len(negatives)
    return precision / positive, wins / (2 * positive * negative)


def _parts(labels: NDArray[Any], scores: NDArray[Any], known: int) -> Iterator[Sides]:
    """The scores of all known cells, positives and negatives, in ranges of scores from the lowest to the highest."""
    count = min(PARTS, known // PART)
    step = max(1, labels.size // SAMPLE)
    cuts: NDArray[Any] = np.empty(0)
    if count > 1:
        present, absent = known_sides(labels[::step])
        sample = scores[::step][present | absent]
        if len(sample):  # else the pool stays in one part
            cuts = np.unique(np.quantile(sample, np.arange(1, count) / count))
    bounds = [None, *cuts.tolist(), None]
    for low, high in pairwise(bounds):
        found: tuple[list[NDArray[Any]], list[NDArray[Any]]] = ([], [])
        for rows in row_blocks(labels.shape):
            some = scores[rows]
            inside = np.ones(some.shape, np.bool_) if low is None else some >= low
            if high is not None:
                inside &= some < high
            for side, kept in zip(known_sides(labels[rows]), found, strict=True):
                kept.append(some[side & inside])
        yield _joined(found[0], scores.dtype), _joined(found[1], scores.dtype)


def _joined(arrays: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    joined = np.concatenate([np.empty(0, dtype), *arrays])
    arrays.clear()
    return joined
