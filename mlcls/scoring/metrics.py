"""Owns the figures: precision to AUROC, for each attribute, macro and micro, over known labels alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import (
    BoolArray,
    attribute_names,
    checked_cells,
    is_present,
    known_sides,
    row_blocks,
)
from mlcls.scoring.ranking import column_rankings, pooled_ranking
from mlcls.scoring.sample_metrics import (
    DECISIONS,
    RANKINGS,
    image_decisions,
    image_rankings,
    mean_of_defined,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

FIGURES = ("precision", "recall", "f1", "accuracy", "average_precision", "auroc")


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
    labels, scores = checked_cells(labels, scores)
    names = attribute_names(attributes, scores.shape[1])
    limits = thresholds_per_attribute(thresholds, scores.shape[1])
    seen = _go_through(labels, scores, limits)
    ranking = column_rankings(labels, scores)
    rows = [
        _attribute(*row)
        for row in zip(names, limits.tolist(), seen.counts.tolist(), ranking.tolist(), strict=True)
    ]
    defined = [row for row in rows if row["auroc"] is not None]
    total = seen.counts.sum(axis=0).tolist()
    pooled = pooled_ranking(labels, scores, total[2] + total[3], total[0] + total[1])
    return {
        "n": int(scores.shape[0]),
        "known_share": sum(total) / scores.size if scores.size else None,
        "macro": {name: _mean([row[name] for row in defined]) for name in FIGURES},
        "micro": _figures(total, pooled),
        "samples": {name: seen.images[name] for name in DECISIONS},
        "hamming_loss": seen.hamming_loss,
        "exact_match": seen.exact_match,
        **{name: seen.images[name] for name in RANKINGS},
        "undefined": [row["name"] for row in rows if row["auroc"] is None],
        "attributes": rows,
    }


def average_precision(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Average precision of each attribute, [A]; NaN without both a known positive and a known negative.

    The step-wise sum of scikit-learn's `average_precision_score`, sum over (R_n - R_(n-1)) * P_n, which is
    the mean over positives of the precision at each one's own score. Arguments as in `evaluate`.
    """
    return column_rankings(*checked_cells(labels, scores))[:, 0]


def auroc(labels: ArrayLike, scores: ArrayLike) -> FloatArray:
    """Area under the ROC curve of each attribute, [A]; NaN without both a known positive and a negative.

    The probability that a positive scores above a negative, ties counting half (Hanley & McNeil 1982); equal
    to scikit-learn's `roc_auc_score`. Arguments as in `evaluate`.
    """
    return column_rankings(*checked_cells(labels, scores))[:, 1]


def hamming_loss(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> float | None:
    """The share of known cells that are wrong, 0 to 1; None when no cell is known.

    Arguments as in `evaluate`.
    """
    labels, scores = checked_cells(labels, scores)
    return _go_through(
        labels, scores, thresholds_per_attribute(thresholds, scores.shape[1]), images=False
    ).hamming_loss


def exact_match(labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> float | None:
    """The share of images, among those with a known label, whose known labels are all right, 0 to 1.

    None when no image has a known label. Arguments as in `evaluate`.
    """
    labels, scores = checked_cells(labels, scores)
    return _go_through(
        labels, scores, thresholds_per_attribute(thresholds, scores.shape[1]), images=False
    ).exact_match


def thresholds_per_attribute(thresholds: ArrayLike, count: int) -> FloatArray:
    limits = np.asarray(thresholds, dtype=np.float64)
    if limits.ndim and limits.shape != (count,):
        raise ValueError(f"thresholds must be one number or [{count}], one an attribute; got {limits.shape}")
    if np.isnan(limits).any():
        raise ValueError("a threshold is NaN")
    return np.broadcast_to(limits, (count,))


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What one pass over the images counts.

    Attributes:
        counts: int64 [A, 4], known cells of each attribute: tn, fp, fn, tp.
        judged, wrong: images with a known label, and those of them with a wrong one.
        images: the means of `DECISIONS` and `RANKINGS` over the images that have them.
    """

    counts: IntArray
    judged: int
    wrong: int
    images: dict[str, float | None]

    @property
    def hamming_loss(self) -> float | None:
        total = int(self.counts.sum())
        return int(self.counts[:, 1:3].sum()) / total if total else None

    @property
    def exact_match(self) -> float | None:
        return (self.judged - self.wrong) / self.judged if self.judged else None


def _go_through(labels: NDArray[Any], scores: NDArray[Any], limits: FloatArray, images: bool = True) -> _Seen:
    """Count block by block, so that no mask of the whole matrix is made.

    Args:
        images: whether the figures of images are wanted.
    """
    counts, judged, wrong = np.zeros((labels.shape[1], 4), dtype=np.int64), 0, 0
    figures = {name: np.empty(len(labels)) for name in (*DECISIONS, *RANKINGS)} if images else {}
    for rows in row_blocks(labels.shape):
        present, absent = known_sides(labels[rows])
        predicted = is_present(scores[rows], limits)
        counts += _confusion(present, absent, predicted)
        judged += int(np.count_nonzero((present | absent).any(axis=1)))
        # an image without a known label is never wrong
        wrong += int(np.count_nonzero(((present & ~predicted) | (absent & predicted)).any(axis=1)))
        if images:
            found = image_decisions(present, absent, predicted)
            found |= image_rankings(scores[rows], present, absent)
            for name, values in found.items():
                figures[name][rows] = values
    means = {name: mean_of_defined(values) for name, values in figures.items()}
    return _Seen(counts, judged, wrong, means)


def _confusion(present: BoolArray, absent: BoolArray, predicted: BoolArray) -> IntArray:
    positive, negative = present.sum(axis=0), absent.sum(axis=0)
    tp, fp = (present & predicted).sum(axis=0), (absent & predicted).sum(axis=0)
    return np.stack([negative - fp, fp, positive - tp, tp], axis=1).astype(np.int64)


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
