"""Owns what one cell of a label matrix means: known present, known absent, predicted present."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.errors import NumericalError
from mlcls.missing import split_missing

BoolArray = NDArray[np.bool_]


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
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 2 or labels.shape != scores.shape:
        raise ValueError(
            f"labels and scores must both be [images, attributes]; got {labels.shape} and {scores.shape}"
        )
    if scores.dtype.kind != "f":  # decisions given as 0 and 1 are scores too
        scores = scores.astype(np.float32)
    lost = np.isnan(scores)
    if lost.any():
        raise NumericalError(
            f"{int(lost.sum())} of {scores.size} scores are NaN, the first in row "
            f"{int(lost.any(axis=1).argmax())} (counted from 0): weights or inputs of the model are not "
            "finite. Train again with lower --lr-head and --lr-finetune, or with --precision fp32"
        )
    values, known = split_missing(labels)
    present = values == 1  # an unknown is filled with 0, so it is never present
    absent = (values == 0) & known
    if np.count_nonzero(known) != np.count_nonzero(present) + np.count_nonzero(absent):
        raise ValueError("a label is neither 0 (absent), 1 (present) nor NaN (unknown)")
    return scores, present, absent


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
