"""Owns the search for the best cut point of one attribute's known scores, as they are and resampled."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.scoring.cells import is_present
from mlcls.scoring.objectives import FLAG, OBJECTIVES, Cuts, Merit, Objective

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

UNTUNED = 0.5
MOST_CUTS = 512  # more ways to part the scores are thinned before they are resampled
LINE = 16  # resamples written together, so that each line of the memory is fetched once
UNITS = 1 << 14  # units whose weights are added at a time: some MB as float32

BUILT_IN = tuple(rank for rank, _ in OBJECTIVES.values() if rank is not None)


def cut_points(positives: NDArray[Any], negatives: NDArray[Any]) -> tuple[FloatArray, Cuts]:
    """Every way in which a threshold can part the known scores of one attribute, from all present to none.

    Equal scores are never parted. A threshold lies midway between the neighbouring scores; below the lowest
    score midway between 0 and it; above the highest midway between it and 1. Each parts its neighbours in
    float64 and in the scores' own precision: where two float32 scores have no float32 between them, so that
    their midpoint would round to the lower one, the threshold is the upper score itself. Above a score of
    exactly 1 it is the next float of that precision.

    Args:
        positives: [P] scores in [0, 1] of known positives, in any order.
        negatives: [N] scores of known negatives; not both empty.

    Returns:
        thresholds: float64 [K], ascending, K one more than there are distinct scores.
        cuts: what each predicts present.
    """
    levels = np.unique(np.concatenate([positives, negatives]))
    tp = len(positives) - np.searchsorted(np.sort(positives), levels, side="left")
    fp = len(negatives) - np.searchsorted(np.sort(negatives), levels, side="left")
    return midpoints(levels), Cuts(np.append(tp, 0), np.append(fp, 0), len(positives), len(negatives))


def midpoints(levels: NDArray[Any]) -> FloatArray:
    """The thresholds of `cut_points`, [K + 1], from the distinct scores in ascending order, [K]."""
    one = levels.dtype.type(1)
    top = one if levels[-1] < one else np.nextafter(one, levels.dtype.type(2))
    above = np.append(levels[1:], top)
    between = (levels.astype(np.float64) + above) / 2
    between = np.where(between.astype(levels.dtype) > levels, between, above)
    return np.concatenate([[np.float64(levels[0]) / 2], between])


def midway(threshold: float, scores: NDArray[Any]) -> float:
    """The middle of the gap between neighbouring scores that a threshold falls in; itself if there are none.

    What is at or above the threshold among `scores`, [K] in any order, does not change.
    """
    yes = is_present(scores, threshold)
    below, above = scores[~yes], scores[yes]
    around = [*([below.max()] if len(below) else []), *([above.min()] if len(above) else [])]
    if not around:
        return threshold
    return float(midpoints(np.array(around))[1 if len(below) else 0])


def best_cut(merit: Merit, thresholds: FloatArray) -> int:
    """The index of the best cut point; among equals the nearest to 0.5, then the higher."""
    best = np.arange(len(thresholds))
    for figure in (*merit.order, -np.abs(thresholds - UNTUNED), thresholds):
        kept = figure[best]
        best = best[kept == kept.max()]
    return int(best[0])


def judge(aim: Objective, cuts: Cuts) -> Merit:
    """How good each of K cut points is.

    Raises:
        RecipeError: the objective is one from outside, and what it gives is not a `Merit` as that is described.
    """
    assert aim.rank is not None
    merit = aim.rank(cuts, *aim.numbers)
    if _is_built_in(aim):
        return merit
    if not isinstance(merit, Merit) or not merit.order:
        raise RecipeError(f"{FLAG}: '{aim.text}' must give a Merit with at least one array in its order")
    if merit.floored is not None and not aim.numbers:
        raise RecipeError(f"{FLAG}: '{aim.text}' has no number that Merit.floored could reach; leave it None")
    merit = Merit(
        np.asarray(merit.value),
        tuple(np.asarray(figure) for figure in merit.order),
        None if merit.floored is None else np.asarray(merit.floored),
    )
    for figure in (merit.value, *merit.order, *([] if merit.floored is None else [merit.floored])):
        if np.shape(figure) != cuts.tp.shape or not np.isfinite(figure).all():
            raise RecipeError(
                f"{FLAG}: '{aim.text}' must give a finite number for each of the cut points, "
                f"so arrays of shape {cuts.tp.shape} without NaN and infinity"
            )
    return merit


def _is_built_in(aim: Objective) -> bool:
    return any(aim.rank is rank for rank in BUILT_IN)  # by identity: a callable need not be hashable


@dataclass(frozen=True, slots=True)
class Side:
    """The known positives (or negatives) of one attribute.

    Attributes:
        scores: [P].
        units: int64 [P], ascending, the image (or group of images) that each belongs to.
    """

    scores: NDArray[Any]
    units: IntArray


def side(scores: NDArray[Any], where: NDArray[np.bool_], units: IntArray) -> Side:
    """Those of `scores` [N] where `where` [N], with their `units` [N], in the order of these."""
    scores, units = scores[where], units[where]
    if (units[1:] < units[:-1]).any():
        order = np.argsort(units, kind="stable")
        scores, units = scores[order], units[order]
    return Side(scores, units)


def thinned_cuts(positives: Side, negatives: Side) -> FloatArray:
    """The thresholds of `cut_points`; of more than `MOST_CUTS` those at even quantiles of either side.

    The quantiles of the positives keep the steps of recall small however rare they are.
    """
    levels = np.unique(np.concatenate([positives.scores, negatives.scores]))
    thresholds = midpoints(levels)
    if len(thresholds) <= MOST_CUTS:
        return thresholds
    chosen = [
        np.searchsorted(levels, np.sort(one.scores)[evenly(len(one.scores), MOST_CUTS // 2 - 1)])
        for one in (positives, negatives)
    ]
    kept: FloatArray = thresholds[np.unique(np.concatenate([*chosen, [0, len(levels)]]))]
    return kept


def evenly(size: int, count: int) -> IntArray:
    """At most `count` indices below `size`, from the first to the last, as evenly as whole numbers are."""
    return np.unique(np.linspace(0, size - 1, min(size, count)).astype(np.int64))


def by_preference(thresholds: FloatArray) -> FloatArray:
    """The order in which equally good cut points are preferred: near to 0.5, of two equally near the higher."""
    return thresholds[np.lexsort((-thresholds, np.abs(thresholds - UNTUNED)))]


def draw_weights(units: int, resamples: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """How often each of the units is in each bootstrap sample (Efron 1979), [units, resamples].

    256 times the same one of 256 units or more is as good as impossible (below 1e-500).
    """
    weights = np.empty((units, resamples), dtype=np.uint8)
    for start in range(0, resamples, LINE):
        some = weights[:, start : start + LINE]
        drawn = [
            np.bincount(random.integers(units, size=units), minlength=units).astype(np.uint8)
            for _ in range(some.shape[1])
        ]
        some[...] = np.stack(drawn, axis=1)
    return weights


def resampled_cuts(
    positives: Side, negatives: Side, thresholds: FloatArray, weights: NDArray[np.uint8]
) -> tuple[Cuts, NDArray[np.bool_]]:
    """What `thresholds` [K] predict present in those of B resamples that have both classes.

    Returns:
        cuts: `tp` and `fp` are [K, B'], `positive` and `negative` [B'].
        both: bool [B], the B' resamples.
    """
    order = np.argsort(thresholds)
    sides = positives, negatives
    reached = [np.searchsorted(thresholds[order], one.scores, side="right").astype(np.int32) for one in sides]
    # cells that reach so many thresholds, and then cells that reach so many or more
    counts = np.zeros((2, len(thresholds) + 1, weights.shape[1]), dtype=np.int64)
    for start in range(0, len(weights), UNITS):
        part = weights[start : start + UNITS].astype(np.float32)  # adds whole numbers exactly up to 2^24
        for one, rows, sums in zip(sides, reached, counts, strict=True):
            first, last = np.searchsorted(one.units, (start, start + len(part)))
            sums += _summed(rows[first:last], one.units[first:last] - start, len(sums), part)
    counts = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
    both = np.all(counts[:, 0] > 0, axis=0)
    above = np.empty((2, len(thresholds), int(np.count_nonzero(both))), dtype=np.int64)
    above[:, order] = counts[:, 1:, both]
    return Cuts(*above, *counts[:, 0, both]), both


def _summed(rows: NDArray[np.int32], units: IntArray, count: int, weights: NDArray[np.float32]) -> IntArray:
    """The weights [U, B] of all cells of each of `count` rows, [count, B]; units ascending, from 0."""
    from scipy.sparse import csc_matrix  # here, so that `predict`, which reads thresholds, need not load it

    ends = np.cumsum(np.bincount(units, minlength=len(weights)), dtype=np.int32)
    ones = np.ones(len(rows), np.float32)
    cells = csc_matrix((ones, rows, np.append(np.int32(0), ends)), shape=(count, len(weights)))
    return np.asarray(cells @ weights, dtype=np.int64)


def judge_resamples(aim: Objective, cuts: Cuts) -> tuple[FloatArray, ...]:
    """The `Merit.order` of `resampled_cuts`, each [K, B'].

    Raises:
        RecipeError: as `judge`.
    """
    if _is_built_in(aim):  # these broadcast; one from outside was promised plain counts
        return judge(aim, cuts).order
    positive, negative = np.atleast_1d(cuts.positive).tolist(), np.atleast_1d(cuts.negative).tolist()
    orders = [
        judge(aim, Cuts(cuts.tp[:, b], cuts.fp[:, b], P, N)).order
        for b, (P, N) in enumerate(zip(positive, negative, strict=True))
    ]
    return tuple(np.stack(figures, axis=1) for figures in zip(*orders, strict=True))


def first_best(order: tuple[FloatArray, ...]) -> IntArray:
    """The first row of the largest figure in each column, [B]; ties of one figure are parted by the next."""
    best = order[0]
    for figure in order[1:]:
        best = np.where(best == best.max(axis=0), figure, -np.inf)
    found: IntArray = best.argmax(axis=0)
    return found
