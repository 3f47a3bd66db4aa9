"""The thresholds of several bundles whose probabilities are averaged: tuned anew where their saved labels allow."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlcls.bundle.files import Bundle
from mlcls.bundle.saved import Common, common_predictions
from mlcls.errors import BundleError
from mlcls.scoring.estimators import LEAST_POSITIVE, estimator_named
from mlcls.scoring.known import read_known
from mlcls.scoring.objectives import parse_objective
from mlcls.scoring.platt import logits_of, sigmoid
from mlcls.scoring.thresholds import tune_report
from mlcls.scoring.tuned import TunedThreshold


def thresholds_together(bundles: Sequence[Bundle]) -> tuple[NDArray[np.float64], str]:
    """The thresholds [A] for the mean of these bundles' probabilities, and a sentence on where they are from.

    Where the saved validation predictions of all bundles share images whose labels are enough to tune on, they are
    tuned on the mean of these, with the objective, the estimator and the seed of the first bundle. Else they are the
    mean of the bundles' own, on the scale of logits. Either way in the order of the first one's attributes.

    Args:
        bundles: two or more, of the same attributes.

    Raises:
        BundleError: saved predictions are damaged.
        RecipeError: the first bundle's objective or estimator is none that this version knows.
    """
    common = _enough_to_tune(bundles)
    if isinstance(common, str):
        return _mean_thresholds(bundles), _averaged(bundles, common)
    aim = bundles[0].thresholds[0]
    known = read_known(common.predictions.labels, common.predictions.scores, common.groups)
    found = estimator_named(aim.estimator)(known, parse_objective(aim.objective), 0, _seed(bundles))
    return found.thresholds, _tuned(bundles, common)


def tuned_together(bundles: Sequence[Bundle]) -> tuple[tuple[TunedThreshold, ...], str]:
    """The thresholds of `thresholds_together` with what they rest on and are worth; raises the same."""
    common = _enough_to_tune(bundles)
    if isinstance(common, str):
        values = _mean_thresholds(bundles).tolist()
        parts = [_ordered(bundle, bundles[0]) for bundle in bundles]
        return tuple(
            TunedThreshold(
                name=rows[0].name,
                threshold=value,
                objective=rows[0].objective,
                known=sum(row.known for row in rows),
                positive=sum(row.positive for row in rows),
                negative=sum(row.negative for row in rows),
                value=None,
                note=f"the mean of {len(bundles)} models' thresholds, on the scale of logits",
                estimator=rows[0].estimator,
            )
            for value, rows in zip(values, zip(*parts, strict=True), strict=True)
        ), _averaged(bundles, common)
    aim = bundles[0].thresholds[0]
    predictions = common.predictions
    return tune_report(
        predictions.labels,
        predictions.scores,
        aim.objective,
        predictions.attributes,
        estimator=aim.estimator,
        groups=common.groups,
        seed=_seed(bundles),
    ), _tuned(bundles, common)


def _enough_to_tune(bundles: Sequence[Bundle]) -> Common | str:
    """What the saved validation predictions share, or why that is not enough: the end of a sentence.

    Enough are at least `LEAST_POSITIVE` known positives and a known negative of every attribute, or all that the first
    bundle was tuned on itself; and half of the positives that any of them was tuned on: what one was tuned well on is
    not given up for a few images.
    """
    try:
        common = common_predictions(bundles, "val")
    except BundleError as error:
        return f"since they cannot be tuned together ({error})"
    found, own = common.predictions.labels, common.own.labels
    positive, negative = ((found == value).sum(axis=0) for value in (1, 0))
    enough = (positive >= LEAST_POSITIVE) & (negative > 0)
    enough |= (positive >= (own == 1).sum(axis=0)) & (negative >= (own == 0).sum(axis=0))
    most = np.max([[row.positive for row in _ordered(bundle, bundles[0])] for bundle in bundles], axis=0)
    enough &= 2 * positive >= most
    if enough.all():
        return common
    name = common.predictions.attributes[int(np.flatnonzero(~enough)[0])]
    return (
        f"since their validation subsets have {len(found)} images in common, too few to tune '{name}' on; training "
        "them with one split (--split file:) mends that"
    )


def _mean_thresholds(bundles: Sequence[Bundle]) -> NDArray[np.float64]:
    values = [[row.threshold for row in _ordered(bundle, bundles[0])] for bundle in bundles]
    found: NDArray[np.float64] = sigmoid(logits_of(np.clip(values, 0.0, 1.0)).mean(axis=0))
    return found


def _ordered(bundle: Bundle, first: Bundle) -> list[TunedThreshold]:
    rows = {row.name: row for row in bundle.thresholds}
    return [rows[name] for name in first.attributes]


def _seed(bundles: Sequence[Bundle]) -> int:
    return int(bundles[0].manifest.get("seed", 0))


def _tuned(bundles: Sequence[Bundle], common: Common) -> str:
    return (
        f"thresholds: tuned on the mean of the {len(bundles)} models' saved predictions of the "
        f"{len(common.predictions.images)} validation images that all have, for {bundles[0].thresholds[0].objective}"
    )


def _averaged(bundles: Sequence[Bundle], why: str) -> str:
    return f"thresholds: the mean of the {len(bundles)} models' own, on the scale of logits, {why}"
