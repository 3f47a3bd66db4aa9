"""Owns what stands beside every figure: its interval, the baselines that need no image, the test against chance."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mlcls.scoring.baselines import base_rates, baselines
from mlcls.scoring.chance import against_chance
from mlcls.scoring.intervals import RESAMPLES, intervals
from mlcls.scoring.metrics import FIGURES, evaluate
from mlcls.scoring.thresholds import TunedThreshold


def assess(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    attributes: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """`metrics.evaluate` with all that a reader needs to judge its figures by.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        thresholds: [A], or one number for all; present means score >= threshold.
        attributes: A names; `Attr1`, `Attr2`, ... when not given.
        groups: int [N], equal for images that belong together (`intervals` draws groups, `against_chance` lets
            one image of a group and known label stand for the others); None, or a number of its own
            for each image, where none do.
        resamples: of the bootstrap; 0 leaves intervals out.
        seed: of the bootstrap.

    Returns:
        The entry of `evaluate`, and in it

        - `intervals`: as `Intervals.overall`; None without resamples,
        - `baselines`: {`always_present`, `always_absent`}, six figures each, over the attributes of `macro`;
          `always_present_pooled` {`micro`, `samples`}; and `base_rates`, the figures of answering by base rates,
        - `not_distinguishable`: names of the attributes that were tested against chance and did not pass,
        - in each of `attributes`: `intervals` (six figures, `[low, high]` or None each), `baselines` (`base_rate`,
          `always_present`, `always_absent`), `chance` (`p`, `p_adjusted`, `distinguishable`).

    Raises:
        ValueError: shapes that do not fit, a label other than 0, 1 and NaN, fewer than 0 resamples.
        NumericalError: a score is NaN.
    """
    if resamples < 0:
        raise ValueError(f"resamples must be 0 or more; got {resamples}")
    entry = evaluate(labels, scores, thresholds, attributes=attributes)
    if groups is not None and len(np.unique(np.asarray(groups))) == len(np.asarray(groups)):
        groups = None
    plain = baselines(labels)
    chance = against_chance(labels, scores, groups=groups)
    each: list[dict[str, Any]] = [dict.fromkeys(FIGURES) for _ in chance]
    entry["intervals"] = None
    if resamples:
        found = intervals(labels, scores, thresholds, groups=groups, resamples=resamples, seed=seed)
        entry["intervals"], each = found.overall, [dict(row) for row in found.attributes]
    entry["baselines"] = {
        **plain["macro"],
        "always_present_pooled": plain["pooled"],
        "base_rates": base_rates(labels),
    }
    for row, spread, baseline, test in zip(
        entry["attributes"], each, plain["attributes"], chance, strict=True
    ):
        row.update(intervals=spread, baselines=baseline, chance=test)
    entry["not_distinguishable"] = [
        row["name"] for row in entry["attributes"] if row["chance"]["distinguishable"] is False
    ]
    return entry


def with_cross_fitted(entry: dict[str, Any], thresholds: Sequence[TunedThreshold]) -> dict[str, Any]:
    """The entry of the very labels that thresholds were tuned on, with the F1 that they are worth beside.

    An F1 at a threshold that was chosen for F1 on the same labels flatters. `cross_fitted` is added to every
    attribute and, as their mean, to the entry: the F1 on held-out folds (None: undefined, and for the mean where any
    attribute's is, since it would be a mean of others than the F1 beside it). Nothing is added where thresholds were
    chosen for something else, on other labels, or before there was cross-fitting.
    """
    rows = entry["attributes"]
    same = all(
        one.objective == "f1" and (one.known, one.positive) == (row["known"], row["positive"])
        for one, row in zip(thresholds, rows, strict=True)
    )
    if not same:
        return entry
    worth = [{**row, "cross_fitted": one.cross_fitted} for one, row in zip(thresholds, rows, strict=True)]
    defined = [row["cross_fitted"] for row in worth if row["f1"] is not None]
    known = [value for value in defined if value is not None]
    if not known:
        return entry
    macro = sum(known) / len(known) if len(known) == len(defined) else None
    return {**entry, "cross_fitted": macro, "attributes": worth}
