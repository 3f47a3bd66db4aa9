"""Owns the honest figure of tuned thresholds: tuned on some folds, scored on the fold that was left out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, is_present, row_blocks
from mlcls.scoring.estimators import estimator_named
from mlcls.scoring.known import Known, read_known
from mlcls.scoring.objectives import Cuts, Objective, parse_objective
from mlcls.scoring.optima import FloatArray, IntArray, judge

FOLDS = 5
RESAMPLES = 100  # of the robust estimator in each fold: half of what the thresholds themselves get


@dataclass(frozen=True, slots=True)
class CrossFit:
    """What the thresholds of an estimator are worth on labels that did not choose them.

    Attributes:
        values: A figures of the objective (see `TunedThreshold.value`) of the pooled held-out decisions; None
            where folds could not be made: fewer than two images (or groups) with a known positive, or with a
            known negative, or all of them fell into one fold; and for `fixed:T`, which chooses nothing.
        f1: A figures, F1 of the same decisions.
        counts: int64 [A, 4], tn, fp, fn, tp of the same decisions; zeros where there are none.
        folds: int64 [A], among how many folds each attribute's known positives (or its known negatives, if those
            are fewer) are divided; 0 where they are not.
    """

    values: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    counts: IntArray
    folds: IntArray


def cross_fit(
    labels: ArrayLike,
    scores: ArrayLike,
    objective: str | Objective = "f1",
    estimator: str = "robust",
    *,
    folds: int = FOLDS,
    groups: Sequence[Any] | ArrayLike | None = None,
    seed: int = 0,
) -> CrossFit:
    """Tune on all folds but one, decide on that one, and count the decisions of all folds together.

    The counts of all folds are pooled before a figure is computed: a mean of the folds' F1 would be biased
    where folds have few positives (Forman & Scholz 2010, "Apples-to-apples in cross-validation studies").
    Images are divided once for all attributes, see `divide_images`: a robust threshold leans on the other
    attributes, and where they resemble this one, it would know the images left out through them.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        objective: see `parse_objective`.
        estimator: a name of `ESTIMATORS`.
        folds: at most so many, at least 2.
        groups: [N]; rows of one group are never divided.
        seed: of the division and of the estimator.

    Raises:
        RecipeError: an unknown objective or estimator.
        ValueError: as `tune_report`; fewer than 2 folds.
    """
    aim = parse_objective(objective) if isinstance(objective, str) else objective
    return cross_fit_known(read_known(labels, scores, groups), aim, estimator, folds=folds, seed=seed)


def cross_fit_known(
    known: Known, aim: Objective, estimator: str = "robust", *, folds: int = FOLDS, seed: int = 0
) -> CrossFit:
    """`cross_fit` of labels and scores that were checked already."""
    if folds < 2:
        raise ValueError(f"folds must be at least 2; got {folds}")
    estimate = estimator_named(estimator)
    fold_of, made = divide_images(known.present, known.absent, known.units, folds, seed)
    counts = np.zeros((known.scores.shape[1], 4), dtype=np.int64)
    if aim.rank is None:
        made = np.zeros_like(made)
    for fold in range(folds if made.any() else 0):
        out = fold_of == fold
        resamples = RESAMPLES if estimator == "robust" else 0
        counts += _decided(known, out, estimate(known.without(out), aim, resamples, seed).thresholds)
    counts[made == 0] = 0
    rows = zip(counts.tolist(), made.tolist(), strict=True)
    pairs = [_figures(row, aim) if divided else (None, None) for row, divided in rows]
    return CrossFit(tuple(value for value, _ in pairs), tuple(f1 for _, f1 in pairs), counts, made)


def _decided(known: Known, out: BoolArray, thresholds: FloatArray) -> IntArray:
    """The known cells of the rows `out` [N] counted as tn, fp, fn, tp: int64 [A, 4]."""
    counts = np.zeros((known.scores.shape[1], 4), dtype=np.int64)
    for rows in row_blocks(known.scores.shape):
        some = out[rows]
        yes = is_present(known.scores[rows][some], thresholds)
        one, zero = known.present[rows][some], known.absent[rows][some]
        counts += np.stack([cell.sum(axis=0) for cell in (zero & ~yes, zero & yes, one & ~yes, one & yes)], 1)
    return counts


def divide_images(
    present: BoolArray, absent: BoolArray, units: IntArray, folds: int, seed: int
) -> tuple[NDArray[np.int16], IntArray]:
    """Deal the rows into folds, whole units, each attribute's known positives and negatives about evenly.

    Attribute by attribute, positives and negatives apart and the rarest first, as there is least room for
    those: units not dealt yet go to the folds that have fewest of them (Sechidis et al. 2011, "On the
    stratification of multi-label data", done for whole attributes at a time).

    Returns:
        fold_of: int16 [N], the fold of each row, -1 where nothing is known.
        made: int64 [A], see `CrossFit.folds`.
    """
    size = int(units.max()) + 1 if len(units) else 0
    sides = [*present.T, *absent.T]
    shuffled = np.random.default_rng(seed).permutation(size)
    fold = np.full(size, -1, dtype=np.int16)
    for side in sorted(sides, key=np.count_nonzero):
        cells = np.bincount(units[side], minlength=size)
        waiting = shuffled[((cells > 0) & (fold < 0))[shuffled]]
        waiting = waiting[np.argsort(-cells[waiting], kind="stable")]  # groups with most cells first
        have, total = (
            np.bincount(fold[chosen & (fold >= 0)], minlength=folds) for chosen in (cells > 0, fold >= 0)
        )
        fold[waiting] = _to_the_emptiest(have, total, len(waiting))
    fold_of = fold[units]
    reached = [np.count_nonzero(np.bincount(fold_of[side], minlength=folds)) for side in sides]
    made = np.minimum(*np.array(reached, dtype=np.int64).reshape(2, -1))
    return fold_of, np.where(made < 2, 0, made)


def _to_the_emptiest(have: IntArray, total: IntArray, count: int) -> IntArray:
    """Folds for `count` units, one after the other to the fold with fewest; of equal ones the lesser total."""
    after = have[:, None] + np.arange(count)
    return np.lexsort((np.repeat(total, count), after.ravel()))[:count] // max(count, 1)


def divide(
    present: BoolArray, absent: BoolArray, units: IntArray, folds: int, random: np.random.Generator
) -> tuple[NDArray[np.int16], int]:
    """Deal one attribute's known cells into folds, whole units, positives and negatives evenly.

    Args:
        present, absent: [N], which cells are known to be so.
        units: int64 [N], from 0.

    Returns:
        held: int16 [N], the fold of each known cell, -1 elsewhere, and everywhere where it is not divided.
        made: how many folds there are, 0 where it is not divided.
    """
    held = np.full(len(present), -1, dtype=np.int16)
    size = int(units.max()) + 1 if len(units) else 0
    positive = np.bincount(units[present], minlength=size)
    negative = np.bincount(units[absent], minlength=size)
    count = min(folds, int(np.count_nonzero(positive)), int(np.count_nonzero(negative)))
    if count < 2:
        return held, 0
    shuffled = random.permutation(size)
    fold = np.empty(size, dtype=np.int16)
    # units with a positive are dealt in turns, those with most first; the others in turns from the last
    for cells, chosen, turn in ((positive, positive > 0, 1), (negative, positive == 0, -1)):
        some = shuffled[chosen[shuffled]]
        some = some[np.argsort(-cells[some], kind="stable")]
        fold[some] = np.resize(np.arange(count)[::turn], len(some))
    known = present | absent
    held[known] = fold[units[known]]
    return held, count


def _figures(counts: list[int], aim: Objective) -> tuple[float | None, float | None]:
    tn, fp, fn, tp = counts
    cuts = Cuts(np.array([tp]), np.array([fp]), tp + fn, fp + tn)
    return float(judge(aim, cuts).value[0]), 2 * tp / (2 * tp + fp + fn)
