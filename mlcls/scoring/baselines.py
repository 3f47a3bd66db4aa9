"""Owns what needs no image: the figures of answering always present, always absent, or the base rate."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.missing import split_missing
from mlcls.scoring.cells import row_blocks
from mlcls.scoring.metrics import evaluate

Row = dict[str, Any]
IntArray = NDArray[np.int64]

IMAGE_FREE = (
    "macro",
    "micro",
    "samples",
    "hamming_loss",
    "exact_match",
    "coverage_error",
    "label_ranking_average_precision",
)


def baselines(labels: ArrayLike) -> dict[str, Any]:
    """The six figures of two answers that look at no image, over known labels.

    The score of either is the same for every image, so that AUROC is 0.5 and average precision the base rate, as
    scikit-learn has them for a constant score; guessing at random with any probability has these two as well.
    A model's F1 stands beside `always_present`'s, its accuracy beside the better of both.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.

    Returns:
        `macro` {`always_present`, `always_absent`} with the six figures each, means over the attributes that have
        both a known positive and a known negative (the same over which `evaluate` takes its macro means), None
        where there is no such attribute; `pooled`, answering present over all known cells (`micro`) and by image
        (`samples`), as `evaluate` has them; and `attributes`, a dict each: `base_rate`, the known positives'
        share of the known labels (None where nothing is known), `always_present`, `always_absent`
        (figures None without both classes).

    Raises:
        ValueError: labels are not [N, A].
    """
    labels = np.asarray(labels)
    if labels.ndim != 2:
        raise ValueError(f"labels must be [images, attributes]; got {labels.shape}")
    (positive, known), of_images = _counts(labels)
    rows = [_attribute(*pair) for pair in zip(positive.tolist(), known.tolist(), strict=True)]
    return {
        "macro": {
            answer: _mean([row[answer] for row in rows]) for answer in ("always_present", "always_absent")
        },
        "pooled": {
            "micro": _attribute(int(positive.sum()), int(known.sum()))["always_present"],
            "samples": _images(*of_images),
        },
        "attributes": rows,
    }


def base_rates(labels: ArrayLike) -> dict[str, Any]:
    """The figures of answering every attribute by its base rate, the same for every image.

    Pooled over attributes (micro) and within an image (label ranking), such answers rank well without a look at any
    image, since frequent attributes stand above rare ones: only what lies above them has been seen.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown. The rates are those of these very labels.

    Returns:
        Of the entry of `metrics.evaluate`, at threshold 0.5 (the more frequent answer): `macro`, `micro`, `samples`,
        `hamming_loss`, `exact_match`, `coverage_error`, `label_ranking_average_precision`.

    Raises:
        ValueError: labels are not [N, A], or are neither 0, 1 nor NaN.
    """
    labels = np.asarray(labels)
    (positive, known), _ = _counts(labels)
    rates = np.divide(positive, known, out=np.full(len(known), 0.5), where=known > 0)
    entry = evaluate(labels, np.broadcast_to(rates.astype(np.float32), labels.shape), 0.5)
    return {name: entry[name] for name in IMAGE_FREE}


def always_present(base_rate: float) -> Row:
    """The six figures of answering present for every image; `base_rate` in (0, 1)."""
    return {
        "precision": base_rate,
        "recall": 1.0,
        "f1": 2 * base_rate / (1 + base_rate),
        "accuracy": base_rate,
        "average_precision": base_rate,
        "auroc": 0.5,
    }


def always_absent(base_rate: float) -> Row:
    """The six figures of answering absent for every image; precision of no answer is 0, as in `evaluate`."""
    return {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "accuracy": 1 - base_rate,
        "average_precision": base_rate,
        "auroc": 0.5,
    }


def _attribute(positive: int, known: int) -> Row:
    rate = positive / known if known else None
    if rate is None or not 0 < positive < known:
        undefined: Row = dict.fromkeys(always_present(0.5))
        return {"base_rate": rate, "always_present": undefined, "always_absent": dict(undefined)}
    return {"base_rate": rate, "always_present": always_present(rate), "always_absent": always_absent(rate)}


def _counts(labels: NDArray[Any]) -> tuple[tuple[IntArray, IntArray], tuple[IntArray, IntArray]]:
    """Known positives and known labels, of each attribute [A] and of each image [N]."""
    columns = np.zeros((2, labels.shape[1]), dtype=np.int64)
    images = np.zeros((2, len(labels)), dtype=np.int64)
    for rows in row_blocks(labels.shape):
        values, known = split_missing(labels[rows])
        for number, cells in enumerate((values == 1, known)):
            columns[number] += cells.sum(axis=0)
            images[number, rows] = cells.sum(axis=1)
    return (columns[0], columns[1]), (images[0], images[1])


def _images(positive: IntArray, known: IntArray) -> Row:
    """Answering present, the mean over images with a known positive."""
    rate = positive[positive > 0] / known[positive > 0]
    if not len(rate):
        return dict.fromkeys(("precision", "recall", "f1", "accuracy"))
    precision, f1 = float(rate.mean()), float((2 * rate / (1 + rate)).mean())
    return {"precision": precision, "recall": 1.0, "f1": f1, "accuracy": precision}


def _mean(rows: list[Row]) -> Row:
    """The mean of each figure over the rows that have it."""
    defined = [row for row in rows if row["auroc"] is not None]
    return {
        name: sum(row[name] for row in defined) / len(defined) if defined else None
        for name in always_present(0.5)
    }
