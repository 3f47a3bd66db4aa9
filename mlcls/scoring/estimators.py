"""Owns how a threshold is estimated from few labels: `robust`, drawn toward all attributes, and `exact`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError
from mlcls.naming import suggest
from mlcls.scoring.cells import BoolArray
from mlcls.scoring.known import Known
from mlcls.scoring.objectives import Cuts, Merit, Objective
from mlcls.scoring.optima import (
    UNTUNED,
    FloatArray,
    IntArray,
    best_cut,
    by_preference,
    cut_points,
    draw_weights,
    evenly,
    first_best,
    judge,
    judge_resamples,
    midway,
    resampled_cuts,
    thinned_cuts,
)

FLAG = "--estimator"
LEAST_POSITIVE = 3  # with fewer known positives an optimum is an accident
RESAMPLES = 200
PULL = 3.0  # how many known positives the threshold of all attributes weighs as much as
WEIGHTS = 1 << 26  # bytes of bootstrap weights held at a time, or one a cell where that is more
COMMON_CUTS = 512  # thresholds at which all attributes are judged together
END = 1e-8  # a probability this near to 0 or 1 has the logit of this one: 0 and what is above 1 have none


@dataclass(frozen=True, slots=True)
class Estimate:
    """Thresholds and how sure they are.

    Attributes:
        thresholds: float64 [A].
        draws: float64 [R, A], the threshold of each bootstrap sample; NaN where a sample gave none; R may be 0.
        notes: A sentences or None.
    """

    thresholds: FloatArray
    draws: FloatArray
    notes: tuple[str | None, ...]


Estimator = Callable[[Known, Objective, int, int], Estimate]  # (known, aim, resamples, seed)


def estimator_named(name: str) -> Estimator:
    """The function of `ESTIMATORS` that is called so.

    Raises:
        RecipeError: there is none; names `--estimator` and the nearest one.
    """
    if name not in ESTIMATORS:
        raise RecipeError(f"{FLAG}: unknown name '{name}'; {suggest(name, ESTIMATORS)}")
    return ESTIMATORS[name]


def exact(known: Known, aim: Objective, resamples: int, seed: int) -> Estimate:
    """The best of all cut points of each attribute's own known labels.

    Among equally good ones the nearest to 0.5, and of two equally near ones the higher. An attribute with
    fewer than `LEAST_POSITIVE` known positives, or with no known negative, keeps 0.5 and its note says so.
    The draws are the best cut points of the resamples (of at most `MOST_CUTS`).
    """
    count = known.scores.shape[1]
    if aim.rank is None:
        return Estimate(np.full(count, aim.numbers[0]), np.empty((0, count)), (None,) * count)
    thresholds, notes = np.full(count, UNTUNED), [""] * count
    cuts_of: dict[int, FloatArray] = {}
    for column in range(count):
        positives, negatives = known.sides(column)
        notes[column] = _too_few(len(positives.scores), len(negatives.scores))
        if notes[column]:
            continue
        cuts, counts = cut_points(positives.scores, negatives.scores)
        merit = judge(aim, counts)
        best = best_cut(merit, cuts)
        thresholds[column] = cuts[best]
        notes[column] = _unmet(aim, counts, merit, best)
        if resamples:
            cuts_of[column] = by_preference(thinned_cuts(positives, negatives))
    draws = np.full((resamples, count), np.nan)
    for some, weights in _weights(known, resamples if cuts_of else 0, seed):
        for column, cuts in cuts_of.items():
            resampled, both = resampled_cuts(*known.sides(column), cuts, weights)
            if both.any():
                draws[some, column][both] = cuts[first_best(judge_resamples(aim, resampled))]
        del weights  # before the next ones are drawn
    return Estimate(thresholds, draws, tuple(note or None for note in notes))


def robust(known: Known, aim: Objective, resamples: int, seed: int) -> Estimate:
    """The mean of bootstrapped optima, each drawn toward the best threshold for all attributes together.

    In each bootstrap sample (by image, or by group) the attribute's own optimum t and the common threshold c
    that is best for all attributes at once give (n t + 3 c) / (n + 3), n the attribute's known positives; in
    c an attribute with n positives weighs n / (n + 3). Means are of logits, since in probabilities thresholds
    near 0 or 1, as unequal costs ask for, are pulled to the middle. The threshold is the mean over the samples
    (bagging: Breiman 1996; drawing toward the whole: James & Stein 1961), kept within the range of the
    attribute's own optima and moved midway between its own known scores around it, but for an attribute with
    fewer than `LEAST_POSITIVE` positives, whose threshold leans on the others'.
    `benchmarks/thresholds.py` chose mean and pull.

    An attribute without a known positive or negative takes the common threshold as it is; where all attributes
    together have fewer than `LEAST_POSITIVE` positives, all keep 0.5. A floor (`precision:P`, `recall:R`) holds
    for the one threshold it was tested at, so floors are chosen as `exact` does.
    """
    if aim.rank is None or _has_floor(aim):
        return exact(known, aim, resamples, seed)
    resamples = resamples or RESAMPLES
    positive, negative = known.counts()
    both = (positive > 0) & (negative > 0)
    count = known.scores.shape[1]
    if positive[both].sum() < LEAST_POSITIVE:
        notes = tuple(
            _too_few(*pair) or f"kept at {UNTUNED}: too few known positives"
            for pair in zip(positive.tolist(), negative.tolist(), strict=True)
        )
        return Estimate(np.full(count, UNTUNED), np.full((resamples, count), np.nan), notes)
    own, common = _own_and_common(known, aim, np.flatnonzero(both), resamples, seed)
    draws = _drawn(_logit(own), _logit(common), positive)
    at_ends = _drawn(own, common, positive)  # the same means of the probabilities themselves
    found = _probability(_mean(draws, _logit(common)), _mean(at_ends, common))
    return Estimate(
        _moved_midway(known, _within_own(found, own, positive), both & (positive >= LEAST_POSITIVE)),
        _probability(draws, at_ends),
        tuple(_leaning(*pair) for pair in zip(positive.tolist(), negative.tolist(), strict=True)),
    )


ESTIMATORS: dict[str, Estimator] = {"robust": robust, "exact": exact}


def _drawn(own: FloatArray, common: FloatArray, positive: IntArray) -> FloatArray:
    """Each resample's own optimum drawn toward the common one, [R, A]; NaN where there is no own one."""
    drawn: FloatArray = (positive * own + PULL * common[:, None]) / (positive + PULL)
    return drawn


def _mean(draws: FloatArray, common: FloatArray) -> FloatArray:
    """Over the resamples that gave one, [A]; the common mean for an attribute to which none gave one."""
    given = ~np.isnan(draws)
    total = np.where(given, draws, 0).sum(axis=0)
    mean: FloatArray = np.where(given.any(axis=0), total / np.maximum(given.sum(axis=0), 1), common.mean())
    return mean


def _within_own(thresholds: FloatArray, own: FloatArray, positive: IntArray) -> FloatArray:
    """No farther than the attribute's own optima reach, where it has positives enough for some of its own.

    Attributes whose scores lie far from the others' would be drawn out of their range: to present, or absent, for all.
    """
    kept = thresholds.copy()
    for column in np.flatnonzero((positive >= LEAST_POSITIVE) & ~np.isnan(own).all(axis=0)):
        kept[column] = np.clip(kept[column], np.nanmin(own[:, column]), np.nanmax(own[:, column]))
    return kept


def _logit(probabilities: FloatArray) -> FloatArray:
    """NaN stays NaN; what is within `END` of 0 or 1, or above 1, has the logit of `END` or of its complement."""
    inside = np.clip(probabilities, END, 1 - END)
    logits: FloatArray = np.log(inside) - np.log1p(-inside)
    return logits


def _probability(logits: FloatArray, at_ends: FloatArray) -> FloatArray:
    """Back from `_logit`; where that is the logit of an end, `at_ends`, so that 0 and 1 can be reached."""
    last = -np.log(END) - 1e-6  # rounding of a mean
    return np.where(np.abs(logits) >= last, at_ends, 1 / (1 + np.exp(-logits)))


def _weights(known: Known, resamples: int, seed: int) -> Iterator[tuple[slice, NDArray[np.uint8]]]:
    """Which resamples, and how often each unit is in them, [units, B]: so many that no weight a cell is held."""
    units = int(known.units.max()) + 1 if len(known.units) else 0
    random = np.random.default_rng(seed)
    step = max(1, max(WEIGHTS, known.scores.size) // max(1, units))
    for start in range(0, resamples if units else 0, step):
        some = slice(start, min(start + step, resamples))
        yield some, draw_weights(units, some.stop - start, random)


def _own_and_common(
    known: Known, aim: Objective, columns: IntArray, resamples: int, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Each resample's optimum of each attribute, [R, A], and for all attributes at once, [R].

    The common threshold has the largest weighted sum of the objective's (first) figure over attributes.
    """
    every = [by_preference(thinned_cuts(*known.sides(column))) for column in columns]
    grid = np.unique(np.concatenate(every))
    grid = by_preference(grid[evenly(len(grid), COMMON_CUTS)])
    own, common = np.full((resamples, known.scores.shape[1]), np.nan), np.empty(resamples)
    for some, weights in _weights(known, resamples, seed):
        total = np.zeros((len(grid), weights.shape[1]))
        for column, cuts in zip(columns, every, strict=True):
            positives, negatives = known.sides(column)
            counts, both = resampled_cuts(positives, negatives, np.concatenate([cuts, grid]), weights)
            if both.any():
                own[some, column][both] = cuts[first_best(judge_resamples(aim, counts[: len(cuts)]))]
                n = len(positives.scores)
                total[:, both] += n / (n + PULL) * judge_resamples(aim, counts[len(cuts) :])[0]
        common[some] = grid[total.argmax(axis=0)]
        del weights
    return own, common


def _moved_midway(known: Known, thresholds: FloatArray, own: BoolArray) -> FloatArray:
    """Each threshold in the middle of the gap between the attribute's own known scores that it falls in.

    One that is hardly the attribute's `own` stays as it is: around one or two positives gaps are wide.
    """
    moved = thresholds.copy()
    for a in np.flatnonzero(own).tolist():
        scores = np.concatenate([one.scores for one in known.sides(a)])
        moved[a] = midway(float(thresholds[a]), scores)
    return moved


def _has_floor(aim: Objective) -> bool:
    """Whether cut points have to reach something, told by judging two of them."""
    return judge(aim, Cuts(np.array([1, 0]), np.array([1, 0]), 1, 1)).floored is not None


def _unmet(aim: Objective, counts: Cuts, merit: Merit, best: int) -> str:
    """What to say where no cut point reaches the floor."""
    if merit.floored is None or merit.floored[best] >= aim.numbers[0]:
        return ""
    figures = {"precision": float(counts.precision[best]), "recall": float(counts.recall[best])}
    name = aim.text.partition(":")[0]
    seen = f"a {name} of {figures.pop(name):.3f}, " if name in figures else ""
    others = " and ".join(f"a {other} of {figure:.3f}" for other, figure in figures.items())
    return (
        f"no threshold surely reaches {aim.text}: the best has {seen}surely {merit.floored[best]:.3f} or more, "
        f"at {others}"
    )


def _known(positive: int) -> str:
    return f"{positive or 'no'} known positive{'s' if positive != 1 else ''}"


def _too_few(positive: int, negative: int) -> str:
    if positive < LEAST_POSITIVE:
        return f"kept at {UNTUNED}: {_known(positive)}, at least {LEAST_POSITIVE} are needed"
    return "" if negative else f"kept at {UNTUNED}: no known negative"


def _leaning(positive: int, negative: int) -> str | None:
    """What to say of a robust threshold that is hardly the attribute's own."""
    if not positive or not negative:
        missing = _known(positive) if not positive else "no known negative"
        return f"the threshold that is best for all attributes together: {missing}"
    if positive < LEAST_POSITIVE:
        return f"leans on the threshold of all attributes together: {_known(positive)}"
    return None
