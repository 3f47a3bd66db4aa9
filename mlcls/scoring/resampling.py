"""Owns the bootstrap: every figure again on images (or groups of images) drawn with replacement.

A resample is never built. Drawing an image three times is giving it the weight 3, so each attribute is sorted
once, and a resample is a sum of weights along that order.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, is_present, known_cells
from mlcls.scoring.metrics import thresholds_per_attribute
from mlcls.scoring.sample_metrics import DECISIONS, RANKINGS, image_decisions, image_rankings

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Weights = NDArray[np.int32]

IMAGES = (*DECISIONS, *RANKINGS, "exact_match", "hamming_loss")  # figures of images, in this order
CELLS = 1 << 20  # weights held at a time: 4 MB an array, some five of them a thread
THREADS = 8  # beyond which the memory's speed is the limit


@dataclass(frozen=True, slots=True, eq=False)
class Replicates:
    """The figures of R resamples; NaN where a resample leaves one undefined.

    Attributes:
        attributes: float64 [R, A, 6], the six `metrics.FIGURES` of each attribute. Precision, which
            `metrics.evaluate` counts as 0 where nothing is predicted present, is NaN there: 0 of 0 says
            nothing of its spread.
        macro: [R, 6], their means over the attributes that the resample defines, with such a precision as 0.
        micro: [R, 6], over the pool of known cells; precision as that of an attribute.
        images: [R, 8], the figures `IMAGES`.
    """

    attributes: FloatArray
    macro: FloatArray
    micro: FloatArray
    images: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Pool:
    """Known cells from the highest score to the lowest, and the runs of equal scores that hold a positive.

    Attributes:
        rows: int32 [n], the image of each cell.
        hits: int32 [P], the image of each positive cell, in the same order.
        starts, ends: int32 [K], the cells before each run, and before its end.
        hit_ends: int32 [K], the positive cells before the end of each run.
        cut, hit_cut: how many cells, and how many positive ones, are predicted present.
    """

    rows: NDArray[np.int32]
    hits: NDArray[np.int32]
    starts: NDArray[np.int32]
    ends: NDArray[np.int32]
    hit_ends: NDArray[np.int32]
    cut: int
    hit_cut: int


class Scorer:
    """Labels, scores and thresholds made ready to be scored under any weights of the images.

    Arguments as in `metrics.evaluate`.

    Raises:
        ValueError: shapes that do not fit, or a label other than 0, 1 and NaN.
        NumericalError: a score is NaN.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike, thresholds: ArrayLike) -> None:
        scores, present, absent = known_cells(labels, scores)
        limits = thresholds_per_attribute(thresholds, scores.shape[1])
        predicted = is_present(scores, limits)
        self.images, self.attributes = scores.shape
        self._columns = [
            _column(scores[:, a], present[:, a], absent[:, a], predicted[:, a])
            for a in range(self.attributes)
        ]
        self._pool = _pooled(scores, present, absent)
        self._values, self._judged = _image_values(scores, present, absent, predicted)

    def score(self, weights: NDArray[Any]) -> Replicates:
        """The figures under each row of weights, int [R, N], each how often the image counts."""
        weights = np.ascontiguousarray(weights, dtype=np.int32)
        counts = np.zeros((len(weights), self.attributes, 4))
        attributes = np.empty((len(weights), self.attributes, 6))
        for a, pool in enumerate(self._columns):
            counts[:, a], ranking = _weigh(pool, weights)
            attributes[:, a] = _six(counts[:, a], ranking)
        pooled = _weigh_in_parts(self._pool, weights)
        return Replicates(
            attributes,
            _mean(attributes),
            _six(counts.sum(axis=1), pooled),
            self._score_images(weights, counts.sum(axis=1)),
        )

    def _score_images(self, weights: Weights, counts: FloatArray) -> FloatArray:
        heavy = weights.astype(np.float64)
        figures = _divide(heavy @ self._values, heavy @ self._judged)
        wrong = counts[:, 0] - counts[:, 2] + counts[:, 3]  # missed, and false alarms
        return np.column_stack([figures, _divide(wrong, counts[:, 0] + counts[:, 1])])


def replicates(scorer: Scorer, groups: ArrayLike | None, resamples: int, seed: int) -> Replicates:
    """The figures of `resamples` bootstrap resamples of a scorer's images.

    The weights follow from the number of images, the groups, the number of resamples and the seed alone: two
    scorers of the same rows meet the same resamples, on any machine and with any number of threads.

    Args:
        scorer: what is scored.
        groups: int [N], equal numbers for images that are drawn together; None draws image by image.
        resamples: how many, 1 or more.
        seed: of the drawing.

    Raises:
        ValueError: groups that do not fit the images, or fewer than one resample.
    """
    members, units = group_members(groups, scorer.images)
    blocks = list(_blocks(resamples, scorer.images))

    def one(block: tuple[int, int]) -> Replicates:
        return scorer.score(_draw(block, units, seed)[:, members])

    threads = min(THREADS, os.cpu_count() or 1, len(blocks))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        parts = list(pool.map(one, blocks))
    names = ("attributes", "macro", "micro", "images")
    return Replicates(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def group_members(groups: ArrayLike | None, images: int) -> tuple[IntArray, int]:
    """Which unit of drawing each image belongs to, int64 [N] from 0, and how many units there are."""
    if groups is None:
        return np.arange(images), images
    given = np.asarray(groups)
    if given.shape != (images,):
        raise ValueError(f"groups must be [{images}], a number for each image; got {given.shape}")
    names, members = np.unique(given, return_inverse=True)
    return members.astype(np.int64), len(names)


def _blocks(resamples: int, images: int) -> Iterator[tuple[int, int]]:
    """(number, size) of each block of resamples; its number seeds it, so the size may not depend on threads."""
    if resamples < 1:
        raise ValueError(f"at least 1 resample is needed; got {resamples}")
    size = max(1, min(CELLS // max(1, images), 256))
    for number, start in enumerate(range(0, resamples, size)):
        yield number, min(size, resamples - start)


def _draw(block: tuple[int, int], units: int, seed: int) -> Weights:
    """How often each unit is drawn in each resample of a block: int32 [B, units]."""
    number, size = block
    random = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(number,)))
    if not units:
        return np.zeros((size, 0), dtype=np.int32)
    drawn = random.integers(0, units, (size, units)) + units * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * units).reshape(size, units).astype(np.int32)


def _column(scores: NDArray[Any], present: BoolArray, absent: BoolArray, predicted: BoolArray) -> _Pool:
    known = np.flatnonzero(present | absent)
    order = known[np.argsort(-scores[known])]
    return _pool(order, scores[order], present[order], predicted[order])


def _pooled(scores: NDArray[Any], present: BoolArray, absent: BoolArray) -> _Pool:
    """The pool of all known cells; its cut is left at 0, for each attribute has a threshold of its own."""
    known = (present | absent).ravel()
    values, hit = scores.ravel()[known], present.ravel()[known]
    rows = np.repeat(np.arange(len(scores), dtype=np.int32), (present | absent).sum(axis=1))
    order = np.argsort(-values)
    values, hit, rows = values[order], hit[order], rows[order]
    del order  # eight bytes a cell
    return _pool(rows, values, hit, np.zeros(len(hit), np.bool_))


def _pool(rows: NDArray[Any], scores: NDArray[Any], hit: BoolArray, predicted: BoolArray) -> _Pool:
    """Cells from the highest score to the lowest; of the runs of equal scores, those with a positive."""
    ends = np.append(scores[1:] != scores[:-1], True)[: len(scores)]
    hits = np.cumsum(hit, dtype=np.int32)
    last = np.flatnonzero(ends).astype(np.int32) + np.int32(1)
    del ends
    first, hit_ends = np.append(np.int32(0), last[:-1])[: len(last)], hits[last - 1]
    held = np.diff(hit_ends, prepend=np.int32(0)) > 0
    cut = int(np.count_nonzero(predicted))  # the highest scores: a prefix
    return _Pool(
        rows.astype(np.int32, copy=False),
        rows[hit].astype(np.int32, copy=False),
        first[held],
        last[held],
        hit_ends[held],
        cut,
        int(hits[cut - 1]) if cut else 0,
    )


def _image_values(
    scores: NDArray[Any], present: BoolArray, absent: BoolArray, predicted: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """What each image adds to the figures of `IMAGES` but the last, and whether it counts: both [N, 7]."""
    decisions, rankings = image_decisions(present, absent, predicted), image_rankings(scores, present, absent)
    wrong = ((present & ~predicted) | (absent & predicted)).any(axis=1)
    right = np.where((present | absent).any(axis=1), np.where(wrong, 0.0, 1.0), np.nan)
    values = np.column_stack([*decisions.values(), *rankings.values(), right])
    return np.nan_to_num(values), (~np.isnan(values)).astype(np.float64)


def _weigh_in_parts(pool: _Pool, weights: Weights) -> FloatArray:
    """The ranking of a pool that may be A times as long as a column, a few resamples at a time."""
    step = max(1, CELLS // max(1, len(pool.rows)))
    parts = [_weigh(pool, weights[start : start + step])[1] for start in range(0, len(weights), step)]
    return np.concatenate(parts) if parts else np.empty((0, 2))


def _weigh(pool: _Pool, weights: Weights) -> tuple[FloatArray, FloatArray]:
    """Counts [B, 4] (positive, negative, true positive, false positive) and [B, 2] AP, AUROC of one pool.

    Average precision and AUROC are scikit-learn's with these weights as `sample_weight`: equal scores are
    judged together, at the end of their run.
    """
    cells, hits = _running(weights, pool.rows), _running(weights, pool.hits)
    P = hits[:, -1].astype(np.float64)
    N = cells[:, -1] - P
    tp = hits[:, pool.hit_cut]
    counts = np.stack([P, N, tp, cells[:, pool.cut] - tp], axis=1)
    ends = hits[:, pool.hit_ends]
    above = np.zeros_like(ends)
    above[:, 1:] = ends[:, :-1]
    gained = ends - above
    at_end, at_start = cells[:, pool.ends], cells[:, pool.starts]
    precision = gained * (ends / np.maximum(at_end, 1))
    outranked = (at_start - above) + (at_end - ends)  # twice the negatives above, a tie half
    wins = (gained * (2 * N[:, None] - outranked)).sum(axis=1)
    return counts, np.stack([_divide(precision.sum(axis=1), P), _divide(wins, 2 * P * N)], axis=1)


def _running(weights: Weights, rows: NDArray[np.int32]) -> Weights:
    """[B, n + 1]: the weight of the first 0, 1, ... n of these rows."""
    total = np.zeros((len(weights), len(rows) + 1), dtype=np.int32)
    np.cumsum(np.take(weights, rows, axis=1), axis=1, out=total[:, 1:])
    return total


def _six(counts: FloatArray, ranking: FloatArray) -> FloatArray:
    """[B, 6], the `FIGURES`; NaN, all six, without both classes, and precision where nothing is predicted."""
    P, N, tp, fp = counts.T
    figures: FloatArray = np.column_stack(
        [
            _divide(tp, tp + fp),
            _divide(tp, P),
            _divide(2 * tp, P + tp + fp),
            _divide(tp + N - fp, P + N),
            ranking,
        ]
    )
    figures[(P == 0) | (N == 0)] = np.nan
    return figures


def _mean(figures: FloatArray) -> FloatArray:
    """[R, 6] from [R, A, 6]: the mean over the attributes that are defined."""
    defined = ~np.isnan(figures[:, :, -1:])
    return _divide(np.nan_to_num(figures).sum(axis=1), defined.sum(axis=1))


def _divide(top: NDArray[Any], bottom: NDArray[Any]) -> FloatArray:
    out = np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan, dtype=np.float64)
    np.divide(top, bottom, out=out, where=bottom != 0)
    return out
