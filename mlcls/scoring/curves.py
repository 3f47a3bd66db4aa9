"""Owns the curves of one attribute: precision and recall, ROC, figures by threshold, reliability."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import known_cells
from mlcls.scoring.optima import FloatArray, IntArray, cut_points

MOST_POINTS = 200


@dataclass(frozen=True, slots=True, eq=False)
class PrecisionRecallCurve:
    """float64 [K] each, thresholds ascending, so recall falls from 1 to 0.

    The last point stands for no prediction at all: precision 1, recall 0, threshold infinite, as in
    scikit-learn's `precision_recall_curve`.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class RocCurve:
    """float64 [K] each, thresholds descending from infinity, so both rates rise from 0 to 1."""

    thresholds: FloatArray
    false_positive_rate: FloatArray
    true_positive_rate: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class ThresholdCurve:
    """Figures at every way to part the scores, float64 [K] each, thresholds ascending.

    The thresholds are those that tuning chooses among, midway between neighbouring scores. Precision is 0
    where nothing is predicted present, as everywhere in the figures.
    """

    thresholds: FloatArray
    precision: FloatArray
    recall: FloatArray
    f1: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins of (nearly) equally many known cells, by ascending score.

    Attributes:
        predicted: float64 [K], the mean probability of a bin.
        observed: float64 [K], the share of its cells that are present.
        counts: int64 [K].
    """

    predicted: FloatArray
    observed: FloatArray
    counts: IntArray


def precision_recall_curve(
    labels: ArrayLike, scores: ArrayLike, *, most: int | None = MOST_POINTS
) -> PrecisionRecallCurve | None:
    """Precision over recall of one attribute's known cells: a point for each distinct score.

    Args:
        labels: [N], 0 absent, 1 present, NaN unknown.
        scores: [N] probabilities.
        most: at most so many points (at least 2), evenly spaced in recall, the first and the last among them;
            None for all.

    Returns:
        The curve, or None without both a known positive and a known negative.

    Raises:
        ValueError: shapes that do not fit, or a label other than 0, 1 and NaN.
        NumericalError: a score is NaN.
    """
    positives, negatives = _known(labels, scores)
    if not len(positives) or not len(negatives):
        return None
    levels, tp, fp = _counts(positives, negatives)
    recall = np.append(tp / len(positives), 0.0)
    kept = _thin(most, recall)
    thresholds = np.append(levels.astype(np.float64), np.inf)
    return PrecisionRecallCurve(thresholds[kept], np.append(tp / (tp + fp), 1.0)[kept], recall[kept])


def roc_curve(labels: ArrayLike, scores: ArrayLike, *, most: int | None = MOST_POINTS) -> RocCurve | None:
    """The true over the false positive rate of one attribute's known cells: a point for each distinct score.

    Equal to scikit-learn's `roc_curve` with `drop_intermediate=False`. Thinned points are spaced evenly along
    the curve (the sum of both rates). Arguments, None and errors as in `precision_recall_curve`.
    """
    positives, negatives = _known(labels, scores)
    if not len(positives) or not len(negatives):
        return None
    levels, tp, fp = _counts(positives, negatives)
    thresholds = np.append(np.inf, levels[::-1].astype(np.float64))
    true = np.append(0.0, tp[::-1] / len(positives))
    false = np.append(0.0, fp[::-1] / len(negatives))
    kept = _thin(most, true + false)
    return RocCurve(thresholds[kept], false[kept], true[kept])


def threshold_curve(
    labels: ArrayLike, scores: ArrayLike, *, most: int | None = MOST_POINTS
) -> ThresholdCurve | None:
    """Precision, recall and F1 of one attribute's known cells at each cut point of `cut_points`.

    Thinned points are spaced evenly, half of the number along the threshold and half along recall, so that
    neither a long empty stretch nor a crowd of scores loses its shape. Arguments, None and errors as in
    `precision_recall_curve`.
    """
    positives, negatives = _known(labels, scores)
    if not len(positives) or not len(negatives):
        return None
    thresholds, cuts = cut_points(positives, negatives)
    f1 = 2 * cuts.tp / (len(positives) + cuts.tp + cuts.fp)
    kept = _thin(most, thresholds, cuts.recall)
    return ThresholdCurve(thresholds[kept], cuts.precision[kept], cuts.recall[kept], f1[kept])


def reliability(labels: ArrayLike, scores: ArrayLike, bins: int = 10) -> Reliability | None:
    """What is observed where a probability was predicted, in bins of equal mass over one attribute's cells.

    Equal scores are never parted, so there may be fewer bins than asked, and bins of unequal size.

    Args:
        labels, scores: as in `precision_recall_curve`.
        bins: at most so many, at least 1.

    Returns:
        The bins, or None without a known cell.

    Raises:
        ValueError: as in `precision_recall_curve`; fewer than 1 bin.
        NumericalError: a score is NaN.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1; got {bins}")
    positives, negatives = _known(labels, scores)
    every = np.concatenate([positives, negatives]).astype(np.float64)
    if not len(every):
        return None
    order = np.argsort(every, kind="stable")
    every, present = every[order], (order < len(positives)).astype(np.float64)
    # where a bin would begin amid equal scores, it begins before them
    starts = np.linspace(0, len(every), bins, endpoint=False).astype(np.int64)
    starts = np.unique(np.searchsorted(every, every[starts], side="left"))
    counts = np.diff(np.append(starts, len(every)))
    return Reliability(
        np.add.reduceat(every, starts) / counts, np.add.reduceat(present, starts) / counts, counts
    )


def _known(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[Any], NDArray[Any]]:
    """The scores of the known positives and of the known negatives of one column."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"labels and scores must both be [images]; got {labels.shape} and {scores.shape}")
    scores, present, absent = known_cells(labels[:, None], scores[:, None])
    return scores[present], scores[absent]


def _counts(positives: NDArray[Any], negatives: NDArray[Any]) -> tuple[NDArray[Any], IntArray, IntArray]:
    """The distinct scores, ascending, and the positives and negatives at or above each."""
    _, cuts = cut_points(positives, negatives)
    return np.unique(np.concatenate([positives, negatives])), cuts.tp[:-1], cuts.fp[:-1]


def _thin(most: int | None, *along: FloatArray) -> IntArray:
    """Indices of at most `most` points, spaced evenly along each of some monotone figures, the ends kept."""
    size = len(along[0])
    if most is None or size <= most:
        return np.arange(size)
    each = most // len(along)
    kept = [np.array([0, size - 1])]
    for figure in along:
        rising = figure if figure[-1] >= figure[0] else -figure
        nearest = np.searchsorted(rising, np.linspace(rising[0], rising[-1], each)[1:-1])
        kept.append(np.minimum(nearest, size - 1))
    return np.unique(np.concatenate(kept))
