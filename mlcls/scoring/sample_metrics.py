"""Owns the figures of single images: precision to label ranking, of each row over its known cells."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.scoring.cells import BoolArray

FloatArray = NDArray[np.float64]

DECISIONS = ("precision", "recall", "f1", "accuracy")
RANKINGS = ("coverage_error", "label_ranking_average_precision")
BLOCK = 1 << 15  # cells sorted at a time: what the processor's cache holds


def image_decisions(present: BoolArray, absent: BoolArray, predicted: BoolArray) -> dict[str, FloatArray]:
    """Precision, recall, F1 and accuracy of each image over its known cells.

    Accuracy is the share of the image's known cells that are right. Precision is 0 where none of them was
    predicted present.

    Args:
        present, absent: [N, A] masks of the known cells, as `known_cells` gives them.
        predicted: [N, A], what was predicted present.

    Returns:
        `DECISIONS`, each float64 [N]; NaN where the image has no known positive.
    """
    positive, negative = present.sum(axis=1), absent.sum(axis=1)
    tp, fp = (present & predicted).sum(axis=1), (absent & predicted).sum(axis=1)
    judged = positive > 0
    return {
        "precision": _ratio(tp, np.maximum(tp + fp, 1), judged),
        "recall": _ratio(tp, positive, judged),
        "f1": _ratio(2 * tp, positive + tp + fp, judged),
        "accuracy": _ratio(tp + negative - fp, positive + negative, judged),
    }


def image_rankings(scores: NDArray[Any], present: BoolArray, absent: BoolArray) -> dict[str, FloatArray]:
    """Coverage error and label ranking average precision of each image over its known cells.

    Both are those of Tsoumakas, Katakis & Vlahavas (2010), Mining multi-label data, section 34.5.2, as
    scikit-learn's `coverage_error` and `label_ranking_average_precision_score` compute them; equal scores
    count as ranked last of their kind. The coverage error is how far down the ranked attributes the last
    known positive stands, 1 or more. The label ranking average precision is the mean over the positives of
    the share of positives among the attributes ranked at or above each, above 0 and at most 1; it is 1 where
    every known cell is positive.

    Args:
        scores: [N, A], without NaN.
        present, absent: [N, A] masks of the known cells.

    Returns:
        `RANKINGS`, each float64 [N]; NaN where the image has no known positive. (Scikit-learn counts such an
        image as a coverage of 0 and as a ranking of 1, both better than any model could earn.)
    """
    images, attributes = scores.shape
    coverage, ranking = np.full(images, np.nan), np.full(images, np.nan)
    step = max(1, BLOCK // max(1, attributes))
    for start in range(0, images, step):
        rows = start + np.flatnonzero(present[start : start + step].any(axis=1))
        if rows.size:
            one, positive = scores[rows], present[rows]
            known = positive | absent[rows]
            lowest = np.where(positive, one, np.inf).min(axis=1, keepdims=True)
            coverage[rows] = (known & (one >= lowest)).sum(axis=1)
            ranking[rows] = _label_ranking(one, positive, known)
    return dict(zip(RANKINGS, (coverage, ranking), strict=True))


def mean_of_defined(values: FloatArray) -> float | None:
    """The mean of the values that are not NaN; None where there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else None


def _label_ranking(scores: NDArray[Any], positive: BoolArray, known: BoolArray) -> FloatArray:
    """[B] label ranking average precision; scores [B, A], each row with a known positive."""
    # the unknown go to the end; NaN would stand there even among infinite scores, but sorts five times slower
    last = np.inf if np.isfinite(scores).all() else np.nan
    scores = np.where(known, scores, scores.dtype.type(last))
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    hit = np.take_along_axis(positive, order, axis=1)
    below = np.arange(hit.shape[1], dtype=np.int32)  # cells below each, and positives among them
    hits_below = np.cumsum(hit, axis=1, dtype=np.int32) - hit
    tied = ranked[:, 1:] == ranked[:, :-1]
    if tied.any():  # those of the first of a run of equal scores
        first = np.ones(hit.shape, dtype=np.bool_)
        first[:, 1:] = ~tied
        below = np.maximum.accumulate(np.where(first, below, np.int32(0)), axis=1)
        hits_below = np.maximum.accumulate(np.where(first, hits_below, np.int32(0)), axis=1)
    positives, count = (side.sum(axis=1, keepdims=True, dtype=np.int32) for side in (positive, known))
    share = np.divide(positives - hits_below, count - below, out=np.zeros(hit.shape), where=hit)
    return np.asarray(share.sum(axis=1) / positives[:, 0], dtype=np.float64)


def _ratio(top: NDArray[Any], bottom: NDArray[Any], judged: BoolArray) -> FloatArray:
    out = np.full(len(top), np.nan)
    np.divide(top, bottom, out=out, where=judged)
    return out
