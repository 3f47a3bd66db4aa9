"""Owns the choice of thresholds: the exact optimum of an objective over every cut point of each attribute."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.errors import RecipeError
from mlcls.scoring.cells import attribute_names, known_cells
from mlcls.scoring.objectives import FLAG, OBJECTIVES, Cuts, Merit, Objective, parse_objective

__all__ = [
    "LEAST_POSITIVE",
    "OBJECTIVES",
    "UNTUNED",
    "Objective",
    "TunedThreshold",
    "best_cut",
    "cut_points",
    "parse_objective",
    "tune",
    "tune_report",
]

FloatArray = NDArray[np.float64]

LEAST_POSITIVE = 3  # with fewer known positives an optimum is an accident
UNTUNED = 0.5


@dataclass(frozen=True, slots=True)
class TunedThreshold:
    """One attribute's threshold and what it rests on.

    Attributes:
        name: the attribute.
        threshold: present means score >= threshold. Within [0, 1], but for one case: when never saying
            present is best and a score is exactly 1, it is the next float32 above 1.
        objective: as written, e.g. `precision:0.9`.
        known, positive, negative: counts of known labels.
        value: the objective's figure at the threshold, on these very labels (so it flatters): F1, F-beta,
            Youden's J, the total cost; for `precision:P` the recall, for `recall:R` the precision. None for
            `fixed:T`, and without both a known positive and a known negative.
        note: what a person should know, or None: kept at 0.5, or a floor that is not met.
    """

    name: str
    threshold: float
    objective: str
    known: int
    positive: int
    negative: int
    value: float | None
    note: str | None


def tune(labels: ArrayLike, scores: ArrayLike, objective: str | Objective = "f1") -> FloatArray:
    """The thresholds of `tune_report` alone: float64 [A]."""
    return np.array([one.threshold for one in tune_report(labels, scores, objective)], dtype=np.float64)


def tune_report(
    labels: ArrayLike,
    scores: ArrayLike,
    objective: str | Objective = "f1",
    attributes: Sequence[str] | None = None,
) -> tuple[TunedThreshold, ...]:
    """Choose a threshold for every attribute from its known labels, and say what it rests on.

    The best of all cut points that `cut_points` gives; among equally good ones the nearest to 0.5, and of two
    equally near ones the higher. An attribute with fewer than `LEAST_POSITIVE` known positives, or with no
    known negative, keeps 0.5 and its note says so. `fixed:T` is T for every attribute.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        objective: see `parse_objective`.
        attributes: A names; `Attr1`, `Attr2`, ... when not given.

    Raises:
        RecipeError: the objective cannot be read.
        ValueError: shapes that do not fit, a label other than 0, 1 and NaN, a score outside [0, 1].
        NumericalError: a score is NaN.
    """
    aim = parse_objective(objective) if isinstance(objective, str) else objective
    scores, present, absent = known_cells(labels, scores)
    names = attribute_names(attributes, scores.shape[1])
    if scores.size and (scores.min() < 0 or scores.max() > 1):
        raise ValueError(f"scores must be probabilities in [0, 1]; got {scores.min()} to {scores.max()}")
    return tuple(
        _tune_one(name, scores[present[:, column], column], scores[absent[:, column], column], aim)
        for column, name in enumerate(names)
    )


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
    one = levels.dtype.type(1)
    top = one if levels[-1] < one else np.nextafter(one, levels.dtype.type(2))
    above = np.append(levels[1:], top)
    between = (levels.astype(np.float64) + above) / 2
    between = np.where(between.astype(levels.dtype) > levels, between, above)
    thresholds = np.concatenate([[np.float64(levels[0]) / 2], between])
    return thresholds, Cuts(np.append(tp, 0), np.append(fp, 0), len(positives), len(negatives))


def best_cut(merit: Merit, thresholds: FloatArray) -> int:
    """The index of the best cut point; among equals the nearest to 0.5, then the higher.

    Raises:
        RecipeError: the objective (one from outside) did not give a number for every cut point.
    """
    best = np.arange(len(thresholds))
    for figure in (*merit.order, -np.abs(thresholds - UNTUNED), thresholds):
        if figure.shape != thresholds.shape or np.isnan(figure).any():
            raise RecipeError(
                f"{FLAG}: the function must give a number for each of the cut points, and no NaN"
            )
        kept = figure[best]
        best = best[kept == kept.max()]
    return int(best[0])


def _tune_one(name: str, positives: NDArray[Any], negatives: NDArray[Any], aim: Objective) -> TunedThreshold:
    threshold, value, note = _choose(positives, negatives, aim)
    P, N = len(positives), len(negatives)
    return TunedThreshold(name, threshold, aim.text, P + N, P, N, value, note)


def _choose(
    positives: NDArray[Any], negatives: NDArray[Any], aim: Objective
) -> tuple[float, float | None, str | None]:
    """Threshold, value and note of one attribute."""
    if aim.rank is None:
        return aim.numbers[0], None, None
    note = _too_few(len(positives), len(negatives))
    if note is not None:
        return UNTUNED, _value_at(UNTUNED, positives, negatives, aim), note
    thresholds, cuts = cut_points(positives, negatives)
    merit = aim.rank(cuts, *aim.numbers)
    best = best_cut(merit, thresholds)
    if merit.floored is not None and merit.floored[best] < aim.numbers[0]:
        name = aim.text.partition(":")[0]
        note = f"no threshold reaches {aim.text}; the best has a {name} of {merit.floored[best]:.3f}"
    return float(thresholds[best]), float(merit.value[best]), note


def _too_few(positive: int, negative: int) -> str | None:
    if positive < LEAST_POSITIVE:
        known = f"{positive or 'no'} known positive{'s' if positive != 1 else ''}"
        return f"kept at {UNTUNED}: {known}, at least {LEAST_POSITIVE} are needed"
    return None if negative else f"kept at {UNTUNED}: no known negative"


def _value_at(
    threshold: float, positives: NDArray[Any], negatives: NDArray[Any], aim: Objective
) -> float | None:
    if aim.rank is None or not len(positives) or not len(negatives):
        return None
    tp, fp = (np.array([np.count_nonzero(side >= np.float64(threshold))]) for side in (positives, negatives))
    return float(aim.rank(Cuts(tp, fp, len(positives), len(negatives)), *aim.numbers).value[0])
