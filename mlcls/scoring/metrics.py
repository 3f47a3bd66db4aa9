"""Owns the figures: precision to AUROC, for each attribute, macro and micro, over known labels alone."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, attribute_names, is_present, known_cells
from mlcls.scoring.sample_metrics import image_decisions, image_rankings, mean_of_defined

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FIGURES = ("precision", "recall", "f1", "accuracy", "average_precision", "auroc")
BLOCK = 1 << 18  # positives looked up at a time, so that pooling 10 million cells stays a few MB


def evaluate(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    attributes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Every figure of one subset, as the `evaluation` of `metrics.json` holds it.

    An attribute (and likewise the pool of all known cells, for micro) has figures when it has both a known
    positive and a known negative; otherwise all six are None. Precision is 0 where nothing was predicted
    present. Macro is the mean over the attributes that have figures. Micro pools every known cell. The figures
    of images (`samples`, `coverage_error`, `label_ranking_average_precision`: see `sample_metrics`) are means
    over the images with at least one known positive, None where there is none.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        thresholds: [A], or one number for all; present means score >= threshold.
        attributes: A names; `Attr1`, `Attr2`, ... when not given.

    Returns:
        `n`, `known_share` (of all cells; None where there are none), `macro`, `micro`, `samples`,
        `hamming_loss`, `exact_match`, `coverage_error`, `label_ranking_average_precision`, `undefined`
        (names), and `attributes`, a dict each: `name`, `known`, `positive`, `negative`, `threshold`, the six
        `FIGURES`, `confusion`. Plain ints, floats, strings and None: ready for JSON.

    Raises:
        ValueError: shapes that do not fit, or a label other than 0, 1 and NaN.
        NumericalError: a score is NaN.
    """
    scores, present, absent = known_cells(labels, scores)
    names = attribute_names(attributes, scores.shape[1])
    limits = thresholds_per_attribute(thresholds, scores.shape[1])
    predicted = is_present(scores, limits)
    counts = _confusion(present, absent, predicted)
    ranking = _column_ranking(scores, present, absent)
    rows = [
        _attribute(*row)
        for row in zip(names, limits.tolist(), counts.tolist(), ranking.tolist(), strict=True)
    ]
    defined = [row for row in rows if row["auroc"] is not None]
    pooled = _ranking(scores[present], scores[absent])
    decisions = image_decisions(present, absent, predicted)
    rankings = image_rankings(scores, present, absent)
    return {
        "n": int(scores.shape[0]),
        "known_share": float(counts.sum()) / scores.size if scores.size else None,
        "macro": {name: _mean([row[name] for row in defined]) for name in FIGURES},
        "micro": _figures(counts.sum(axis=0).tolist(), pooled),
        "samples": {name: mean_of_defined(values) for name, values in decisions.items()},
        "hamming_loss": _hamming_loss(present, absent, predicted),
        "exact_match": _exact_match(present, absent, predicted),
        **{name: mean_of_defined(values) for name, values in rankings.items()},
        "undefined": [row["name"] for row in rows if row["auroc"] is None],
        "attributes": rows,
    }


def average_precision(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Average precision of each attribute, [A]; NaN without both a known positive and a known negative.

    The step-wise sum of scikit-learn's `average_precision_score`, sum over (R_n - R_(n-1)) * P_n, which is
    the mean over positives of the precision at each one's own score. Arguments as in `evaluate`.
    """
    return _column_ranking(*known_cells(labels, scores))[:, 0]


def auroc(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Area under the ROC curve of each attribute, [A]; NaN without both a known positive and a negative.

    The probability that a positive scores above a negative, ties counting half (Hanley & McNeil 1982); equal
    to scikit-learn's `roc_auc_score`. Arguments as in `evaluate`.
    """
    return _column_ranking(*known_cells(labels, scores))[:, 1]


def confusion_counts(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> IntArray:
    """Known cells of each attribute counted as tn, fp, fn, tp: int64 [A, 4]. Arguments as in `evaluate`."""
    scores, present, absent = known_cells(labels, scores)
    return _confusion(
        present, absent, is_present(scores, thresholds_per_attribute(thresholds, scores.shape[1]))
    )


def hamming_loss(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> float | None:
    """The share of known cells that are wrong, 0 to 1; None when no cell is known.

    Arguments as in `evaluate`.
    """
    scores, present, absent = known_cells(labels, scores)
    return _hamming_loss(
        present, absent, is_present(scores, thresholds_per_attribute(thresholds, scores.shape[1]))
    )


def exact_match(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> float | None:
    """The share of images, among those with a known label, whose known labels are all right, 0 to 1.

    None when no image has a known label. Arguments as in `evaluate`.
    """
    scores, present, absent = known_cells(labels, scores)
    return _exact_match(
        present, absent, is_present(scores, thresholds_per_attribute(thresholds, scores.shape[1]))
    )


def thresholds_per_attribute(thresholds: ArrayLike, count: int) -> FloatArray:
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim and limits.shape != (count,):
        raise ValueError(f"thresholds must be one number or [{count}], one an attribute; got {limits.shape}")
    if np.isnan(limits).any():
        raise ValueError("a threshold is NaN")
    return np.broadcast_to(limits, (count,))


def _confusion(present: BoolArray, absent: BoolArray, predicted: BoolArray) -> IntArray:
    positive, negative = present.sum(axis=0), absent.sum(axis=0)
    tp, fp = (present & predicted).sum(axis=0), (absent & predicted).sum(axis=0)
    return np.stack([negative - fp, fp, positive - tp, tp], axis=1).astype(np.int64)


def _hamming_loss(present: BoolArray, absent: BoolArray, predicted: BoolArray) -> float | None:
    known = np.count_nonzero(present) + np.count_nonzero(absent)
    wrong = np.count_nonzero(present & ~predicted) + np.count_nonzero(absent & predicted)
    return wrong / known if known else None


def _exact_match(present: BoolArray, absent: BoolArray, predicted: BoolArray) -> float | None:
    judged = (present | absent).any(axis=1)
    wrong = ((present & ~predicted) | (absent & predicted)).any(axis=1)  # an unjudged image is never wrong
    images = np.count_nonzero(judged)
    return (images - np.count_nonzero(wrong)) / images if images else None


def _column_ranking(scores: NDArray[Any], present: BoolArray, absent: BoolArray) -> FloatArray:
    """[A, 2]: average precision and AUROC of each attribute."""
    ranking = np.full((scores.shape[1], 2), np.nan)
    for column in range(scores.shape[1]):
        one = scores[:, column]
        ranking[column] = _ranking(one[present[:, column]], one[absent[:, column]])
    return ranking


def _ranking(positives: NDArray[Any], negatives: NDArray[Any]) -> tuple[float, float]:
    """Average precision and AUROC of one pool of scores, NaN both when a side is empty.

    Sorting the two sides apart needs no index array, and equal scores need no care: each positive looks up
    how many of either side lie at or above it.
    """
    P, N = len(positives), len(negatives)
    if not P or not N:
        return float("nan"), float("nan")
    positives, negatives = np.sort(positives), np.sort(negatives)
    precision, wins = 0.0, 0
    for start in range(0, P, BLOCK):
        block = positives[start : start + BLOCK]
        below = np.searchsorted(negatives, block, side="left")
        tp = P - np.searchsorted(positives, block, side="left")
        precision += float((tp / (tp + (N - below))).sum())
        wins += int(below.sum()) + int(np.searchsorted(negatives, block, side="right").sum())
    return precision / P, wins / (2 * P * N)


def _figures(counts: Sequence[int], ranking: Sequence[float]) -> dict[str, float | None]:
    tn, fp, fn, tp = counts
    if not tp + fn or not tn + fp:
        return dict.fromkeys(FIGURES)
    return {
        "precision": tp / (tp + fp) if tp + fp else 0.0,
        "recall": tp / (tp + fn),
        "f1": 2 * tp / (2 * tp + fp + fn),
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
        "average_precision": ranking[0],
        "auroc": ranking[1],
    }


def _attribute(name: str, threshold: float, counts: list[int], ranking: list[float]) -> dict[str, Any]:
    tn, fp, fn, tp = counts
    return {
        "name": name,
        "known": tn + fp + fn + tp,
        "positive": fn + tp,
        "negative": tn + fp,
        "threshold": threshold,
        **_figures(counts, ranking),
        "confusion": {"tn": tn, "fp": fp, "fn": fn, "tp": tp},
    }


def _mean(figures: list[float]) -> float | None:
    return sum(figures) / len(figures) if figures else None
