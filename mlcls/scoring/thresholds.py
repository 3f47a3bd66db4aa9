"""Owns the tuned thresholds: one an attribute, what it rests on, how sure it is, and what it is worth."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlcls.scoring.cells import BoolArray, attribute_names
from mlcls.scoring.crossfit import cross_fit_known
from mlcls.scoring.estimators import (
    ESTIMATORS,
    LEAST_POSITIVE,
    RESAMPLES,
    estimator_named,
)
from mlcls.scoring.known import Known, read_known
from mlcls.scoring.objectives import OBJECTIVES, Cuts, Objective, parse_objective
from mlcls.scoring.optima import UNTUNED, FloatArray, best_cut, cut_points, judge
from mlcls.scoring.tuned import TunedThreshold

__all__ = [
    "ESTIMATORS",
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

SURE = (2.5, 97.5)  # percentiles between which a threshold's interval lies


def tune(
    labels: ArrayLike,
    scores: ArrayLike,
    objective: str | Objective = "f1",
    *,
    estimator: str = "robust",
    seed: int = 0,
) -> FloatArray:
    """The thresholds of `tune_report` alone: float64 [A]. Cheaper: no interval, no cross-fitting."""
    return estimator_named(estimator)(read_known(labels, scores), _read(objective), 0, seed).thresholds


def tune_report(
    labels: ArrayLike,
    scores: ArrayLike,
    objective: str | Objective = "f1",
    attributes: Sequence[str] | None = None,
    *,
    estimator: str = "robust",
    groups: Sequence[Any] | ArrayLike | None = None,
    seed: int = 0,
) -> tuple[TunedThreshold, ...]:
    """Choose a threshold for every attribute from known labels, and say what it rests on and is worth.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        objective: see `parse_objective`; `fixed:T` is T for every attribute.
        attributes: A names; `Attr1`, `Attr2`, ... when not given.
        estimator: a name of `ESTIMATORS`: `robust` or `exact`.
        groups: [N]; rows of one group are resampled and folded together. Thresholds differ a little from those
            of `tune`, which knows of no groups.
        seed: of the bootstrap and of the folds; the same seed gives the same thresholds.

    Raises:
        RecipeError: the objective or the estimator cannot be read.
        ValueError: shapes that do not fit, a label other than 0, 1 and NaN, a score outside [0, 1].
        NumericalError: a score is NaN.
    """
    aim, known = _read(objective), read_known(labels, scores, groups)
    names = attribute_names(attributes, known.scores.shape[1])
    found = estimator_named(estimator)(known, aim, RESAMPLES, seed)
    worth = cross_fit_known(known, aim, estimator, seed=seed).values
    return tuple(
        TunedThreshold(
            name=name,
            threshold=threshold,
            objective=aim.text,
            known=positive + negative,
            positive=positive,
            negative=negative,
            value=_value_at(threshold, known, column, aim),
            note=found.notes[column],
            estimator=estimator,
            cross_fitted=worth[column],
            interval=_interval(found.draws[:, column], threshold),
        )
        for column, (name, threshold, positive, negative) in enumerate(
            zip(names, found.thresholds.tolist(), *(side.tolist() for side in known.counts()), strict=True)
        )
    )


def _read(objective: str | Objective) -> Objective:
    return parse_objective(objective) if isinstance(objective, str) else objective


def _interval(draws: FloatArray, threshold: float) -> tuple[float, float] | None:
    """The middle of the draws, and the threshold: moved to the middle of its gap it may lie a little beyond."""
    draws = draws[~np.isnan(draws)]
    if not len(draws):
        return None
    low, high = np.percentile(draws, SURE).tolist()
    return min(low, threshold), max(high, threshold)


def _value_at(threshold: float, known: Known, column: int, aim: Objective) -> float | None:
    yes = known.scores[:, column] >= np.float64(threshold)
    present, absent = known.present[:, column], known.absent[:, column]
    if aim.rank is None or not present.any() or not absent.any():
        return None
    tp, fp = np.array([_count(present & yes)]), np.array([_count(absent & yes)])
    return float(judge(aim, Cuts(tp, fp, _count(present), _count(absent))).value[0])


def _count(cells: BoolArray) -> int:
    return int(np.count_nonzero(cells))
