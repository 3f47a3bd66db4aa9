"""Owns what one cell of a label matrix means: known present, known absent, predicted present."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.errors import NumericalError
from mlcls.missing import split_missing

BoolArray = NDArray[np.bool_]

BLOCK = 1 << 18  # cells looked at together: what stands beside a large matrix stays small


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the rows of an array of this shape [N, A], each of about `BLOCK` cells, at least one row."""
    step = max(1, BLOCK // max(1, shape[1]))
    for start in range(0, shape[0], step):
        yield slice(start, min(start + step, shape[0]))


def known_cells(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], BoolArray, BoolArray]:
    """Check labels against scores, and say which cells are known to be present and which absent.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A], real numbers, the larger the surer of present.

    Returns:
        `(scores, present, absent)`, each [N, A]; a cell that is in neither mask is unknown.

    Raises:
        ValueError: the shapes are not one [N, A], or a label is neither 0, 1 nor NaN.
        NumericalError: a score is NaN, so that no comparison with it means anything.
    """
    labels, scores = checked_cells(labels, scores)
    present, absent = np.empty(labels.shape, np.bool_), np.empty(labels.shape, np.bool_)
    for rows in row_blocks(labels.shape):
        present[rows], absent[rows] = known_sides(labels[rows])
    return scores, present, absent


def checked_cells(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """Labels and scores as arrays, for whoever goes through them block by block, with `known_sides`.

    Raises:
        ValueError: the shapes are not one [N, A].
        NumericalError: a score is NaN.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(
            f"labels and scores must both be [images, attributes]; got {labels.shape} and {scores.shape}"
        )
    if scores.dtype.kind != "f":  # decisions given as 0 and 1 are scores too
        scores = scores.astype(np.float32)
    lost, first = 0, -1
    for rows in row_blocks(scores.shape):
        nan = np.isnan(scores[rows])
        if nan.any():
            lost += int(nan.sum())
            first = rows.start + int(nan.any(axis=1).argmax()) if first < 0 else first
    if lost:
        raise NumericalError(
            f"{lost} of {scores.size} scores are NaN, the first in row "
            f"{first} (counted from 0): weights or inputs of the model are not "
            "finite. Train again with lower --lr-head and --lr-finetune, or with --precision fp32"
        )
    return labels, scores


def known_sides(labels: NDArray[Any]) -> tuple[BoolArray, BoolArray]:
    """Which labels, of any shape, are known to be present, and which absent.

    Raises:
        ValueError: a label is neither 0, 1 nor NaN.
    """
    values, known = split_missing(labels)
    present = values == 1  # an unknown is filled with 0, so it is never present
    absent = (values == 0) & known
    if np.count_nonzero(known) != np.count_nonzero(present) + np.count_nonzero(absent):
        raise ValueError("a label is neither 0 (absent), 1 (present) nor NaN (unknown)")
    return present, absent


def is_present(scores: ArrayLike, thresholds: ArrayLike) -> BoolArray:
    """Where `score >= threshold`: the one comparison that turns a probability into a decision.

    Args:
        scores: [N, A], or any shape that ends in A.
        thresholds: [A], or one number for all. Compared as float64: as a plain Python number it would be
            rounded to the scores' float32 first, and could fall on the wrong side of a score.
    """
    return np.asarray(scores) >= np.asarray(thresholds, dtype=np.float64)


def attribute_names(attributes: Sequence[str] | None, count: int) -> list[str]:
    """The names given, or `Attr1`, `Attr2`, ... as a table without a header has them.

    Raises:
        ValueError: there are more or fewer names than `count`.
    """
    if attributes is None:
        return [f"Attr{number}" for number in range(1, count + 1)]
    if len(attributes) != count:
        raise ValueError(f"{len(attributes)} attribute names for {count} columns of labels")
    return [str(name) for name in attributes]
