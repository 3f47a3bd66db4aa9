"""From a run's scores to what may be said of them: calibration, thresholds, and every figure with its interval."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlcls.recipe import Recipe
from mlcls.scoring.assessment import assess, with_cross_fitted
from mlcls.scoring.calibration import (
    Calibration,
    fit_calibration,
    identity,
    out_of_fold_figures,
)
from mlcls.scoring.calibration_error import calibration_figures
from mlcls.scoring.predictions import Predictions
from mlcls.scoring.thresholds import TunedThreshold, tune_report

Groups = NDArray[np.int64] | None
SUBSET_NAMES = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Scored:
    """One subset as the network scored it: raw scores, and which images belong together (None: none do)."""

    predictions: Predictions
    groups: Groups


@dataclass(frozen=True)
class Judged:
    """One subset's calibrated predictions, the network's own scores, and where its images stand (None: nowhere)."""

    predictions: Predictions
    raw: NDArray[np.float32]
    images_dir: Path | None


@dataclass(frozen=True)
class Judgement:
    """What is kept of a run's scores.

    `predictions` are calibrated, `raw` the network's own scores, by subset; `evaluation` and `calibration_facts` are
    the record's fields.
    """

    calibration: Calibration
    thresholds: tuple[TunedThreshold, ...]
    predictions: Mapping[str, Predictions]
    raw: Mapping[str, NDArray[np.float32]]
    evaluation: dict[str, dict[str, Any] | None]
    calibration_facts: dict[str, Any] | None

    def threshold_values(self) -> NDArray[np.float64]:
        """The thresholds as an array [A]."""
        return np.array([threshold.threshold for threshold in self.thresholds], dtype=np.float64)


def judge(
    recipe: Recipe,
    val: Scored,
    test: Scored | None,
    shift: NDArray[np.float64] | None,
    advance: Callable[[int], None] = lambda steps: None,
) -> Judgement:
    """Calibrate and tune on validation alone, then evaluate each subset.

    Args:
        shift: [A], what the training is known to have added to the logits, with its sign turned; None: nothing.
        advance: called with 1 after each of the steps, `judging_steps` of them.
    """
    scored = {"val": val} if test is None else {"val": val, "test": test}
    attributes = val.predictions.attributes
    labels, scores = val.predictions.labels, val.predictions.scores
    calibrates = recipe.calibration == "platt"
    calibration = fit_calibration(labels, scores, shift) if calibrates else identity(len(attributes))
    calibrated = {
        name: dataclasses.replace(one.predictions, scores=calibration.apply(one.predictions.scores))
        for name, one in scored.items()
    }
    tuned = tune_report(
        labels,
        calibrated["val"].scores,
        recipe.objective,
        attributes,
        estimator=recipe.estimator,
        groups=val.groups,
        seed=recipe.seed,
    )
    advance(1)
    values = np.array([one.threshold for one in tuned], dtype=np.float64)
    evaluation: dict[str, dict[str, Any] | None] = {"val": None, "test": None}
    for name, one in scored.items():
        evaluation[name] = assess(
            one.predictions.labels,
            calibrated[name].scores,
            values,
            attributes=attributes,
            groups=one.groups,
            resamples=recipe.resamples,
            seed=recipe.seed,
        )
        advance(1)
    assert evaluation["val"] is not None
    evaluation["val"] = with_cross_fitted(evaluation["val"], tuned)
    facts = _calibration_facts(calibration, scored, calibrated, shift, recipe.seed) if calibrates else None
    advance(1)
    raw = {name: one.predictions.scores for name, one in scored.items()}
    return Judgement(calibration, tuned, calibrated, raw, evaluation, facts)


def judging_steps(test: Scored | None) -> int:
    """How often `judge` advances: thresholds, each subset's figures, calibration."""
    return 3 if test is None else 4


def _calibration_facts(
    calibration: Calibration,
    scored: Mapping[str, Scored],
    calibrated: Mapping[str, Predictions],
    shift: NDArray[np.float64] | None,
    seed: int,
) -> dict[str, Any]:
    """The record's `calibration`; what validation gained is measured out of fold."""
    attributes = calibrated["val"].attributes
    slopes, intercepts = calibration.slope.tolist(), calibration.intercept.tolist()
    facts: dict[str, Any] = {
        "method": "platt",
        "attributes": [
            {"name": name, "slope": slope, "intercept": intercept}
            for name, slope, intercept in zip(attributes, slopes, intercepts, strict=True)
        ],
        "val": None,
        "test": None,
    }
    for name, one in scored.items():
        labels, raw = one.predictions.labels, one.predictions.scores
        if name == "val":
            after = out_of_fold_figures(labels, raw, shift, attributes, groups=one.groups, seed=seed)
        else:
            after = calibration_figures(labels, calibrated[name].scores, attributes)
        facts[name] = {"before": calibration_figures(labels, raw, attributes), "after": after}
    return facts
