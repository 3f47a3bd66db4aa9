"""Owns the comparison of models on the same rows: paired differences, their intervals, what has changed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import attribute_names
from mlcls.scoring.intervals import (
    LEAST_DEFINED,
    LEAST_UNITS,
    LEVEL,
    RESAMPLES,
    Evidence,
    Interval,
    add_still,
    evidence,
    is_moved,
    mean_spread,
    quantile,
    reach_of_none,
)
from mlcls.scoring.metrics import FIGURES
from mlcls.scoring.resampling import IMAGES, Replicates, Scorer, replicates
from mlcls.scoring.sample_metrics import DECISIONS

FloatArray = NDArray[np.float64]

JUDGED = ("f1", "average_precision")  # of each attribute: its decisions and its ranking


def paired_differences(
    labels: ArrayLike,
    models: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    attributes: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Any]:
    """Every other model's figures minus the first's, on the same rows and the same bootstrap resamples.

    The interval of a difference d with replicates d* is 2 d - mean d* -+ k t sd d*, with k and t as in
    `intervals`; it always holds d, and needs no scale of its own, for a difference lies about 0. A difference
    other than 0 that no resample moves gets the bound of `intervals` to both sides, within -1 and 1; of the
    coverage error, which has no such range, None. Precision rests on the model that predicts the fewest
    images present, and has no interval where that is one or none.

    An attribute is `changed` when its F1 or its average precision differs: t tests of d / (k sd d*) with
    n - 1 degrees of freedom, corrected over both figures of all attributes by the step-down method of Holm
    (1979), so that among models that are equally good at most a share 1 - level of comparisons names any
    attribute. Where no resample moves a difference other than 0, its p is that of a sign test of n equal
    signs. None where neither figure can be tested: undefined, or one image (or group) of the rarer class.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        models: two or more `(scores [N, A], thresholds [A] or one number)`, the first the one compared with.
        attributes: A names; `Attr1`, `Attr2`, ... when not given.
        groups, resamples, level, seed: as in `intervals`.

    Returns:
        `level`, `resamples`, `unit`, and `models`, one dict for each but the first: `macro`, `micro`,
        `samples` (dicts of figures), `hamming_loss`, `exact_match`, `coverage_error`,
        `label_ranking_average_precision`, each figure `{"difference": float | None, "interval": [low, high]
        | None}`; and `attributes`, a dict each: `name`, the six figures in the same form, `p_adjusted`
        (float or None), `changed` (True, False, None). Ready for JSON.

    Raises:
        ValueError: fewer than two models, shapes that do not fit, a level outside (0, 1).
        NumericalError: a score is NaN.
    """
    if len(models) < 2:
        raise ValueError(f"two models or more are needed to compare; got {len(models)}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    scorers = [Scorer(labels, scores, thresholds) for scores, thresholds in models]
    names = attribute_names(attributes, scorers[0].attributes)
    ones = np.ones((1, scorers[0].images), dtype=np.int32)
    first, first_drawn = scorers[0].score(ones), replicates(scorers[0], groups, resamples, seed)
    found = []
    for scorer, model in zip(scorers[1:], models[1:], strict=True):
        held = evidence(labels, [models[0], model], groups)
        drawn = _minus(replicates(scorer, groups, resamples, seed), first_drawn)
        found.append(_compare(scorer.score(ones), first, drawn, held, names, level))
    unit = "images" if groups is None else "groups"
    return {"level": level, "resamples": resamples, "unit": unit, "models": found}


def difference_to_mean(
    labels: ArrayLike,
    model: tuple[ArrayLike, ArrayLike],
    others: Sequence[tuple[ArrayLike, ArrayLike]],
    *,
    attributes: Sequence[str] | None = None,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Any]:
    """A model's figures minus the mean of others' figures, on the same rows and the same bootstrap resamples.

    So the figures of an ensemble against what one of its members has on average: the mean is taken of the figures,
    in every resample, not of the scores. Intervals and tests as in `paired_differences`.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        model: `(scores [N, A], thresholds [A] or one number)`.
        others: one or more of these.
        attributes, groups, resamples, level, seed: as in `paired_differences`.

    Returns:
        as one of the `models` of `paired_differences`, with `level`, `resamples` and `unit`.

    Raises:
        ValueError: no others, shapes that do not fit, a level outside (0, 1).
        NumericalError: a score is NaN.
    """
    if not others:
        raise ValueError("one model or more is needed to compare with")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    scorer = Scorer(labels, *model)
    names = attribute_names(attributes, scorer.attributes)
    ones = np.ones((1, scorer.images), dtype=np.int32)
    mean: Replicates | None = None
    mean_drawn: Replicates | None = None
    for scores, thresholds in others:  # summed up as they come: replicates of many are large
        other = Scorer(labels, scores, thresholds)
        mean = _plus(mean, _silence_as_nought(other.score(ones)), len(others))
        mean_drawn = _plus(mean_drawn, replicates(other, groups, resamples, seed), len(others))
    assert mean is not None
    assert mean_drawn is not None
    held = evidence(labels, [*others, model], groups)
    drawn = _minus(replicates(scorer, groups, resamples, seed), mean_drawn)
    found = _compare(scorer.score(ones), mean, drawn, held, names, level)
    unit = "images" if groups is None else "groups"
    return {"level": level, "resamples": resamples, "unit": unit, **found}


def _plus(sum_so_far: Replicates | None, one: Replicates, parts: int) -> Replicates:
    """A part of a mean added to the others."""
    scaled = (one.attributes / parts, one.macro / parts, one.micro / parts, one.images / parts)
    if sum_so_far is None:
        return Replicates(*scaled)
    before = (sum_so_far.attributes, sum_so_far.macro, sum_so_far.micro, sum_so_far.images)
    return Replicates(*(a + b for a, b in zip(before, scaled, strict=True)))


def _minus(one: Replicates, other: Replicates) -> Replicates:
    return Replicates(
        one.attributes - other.attributes,
        one.macro - other.macro,
        one.micro - other.micro,
        one.images - other.images,
    )


def _silence_as_nought(point: Replicates) -> Replicates:
    """The figures as `metrics.evaluate` gives them, where precision is 0 without a prediction."""

    def filled(figures: FloatArray) -> FloatArray:
        return np.where(np.isnan(figures[..., -1:]), np.nan, np.nan_to_num(figures))

    return Replicates(filled(point.attributes), point.macro, filled(point.micro), point.images)


def _macro(
    point: Replicates,
    drawn: Replicates,
    held: Evidence,
    parts: Sequence[Interval | None],
    f: int,
    level: float,
) -> dict[str, Any]:
    used, units = ~np.isnan(point.attributes[0, :, -1]), int(held.distinct[f])
    columns = drawn.attributes[:, used, f]
    spread = mean_spread(columns, held.attributes[used, f], units)
    found = _difference(point.macro[0, f], drawn.macro[:, f], units, level, spread)
    if found["difference"] is not None:
        kept = [part for part, use in zip(parts, used, strict=True) if use]
        found["interval"] = add_still(
            found["difference"], found["interval"], point.attributes[0, used, f], columns, kept, (-1.0, 1.0)
        )
    return found


def _compare(
    one: Replicates, other: Replicates, drawn: Replicates, held: Evidence, names: list[str], level: float
) -> dict[str, Any]:
    point = _minus(_silence_as_nought(one), _silence_as_nought(other))
    each = [
        [
            _difference(x, drawn.attributes[:, a, f], int(held.attributes[a, f]), level)
            for f, x in enumerate(figures)
        ]
        for a, figures in enumerate(point.attributes[0])
    ]
    macro = {
        name: _macro(point, drawn, held, [row[f]["interval"] for row in each], f, level)
        for f, name in enumerate(FIGURES)
    }
    micro = {
        name: _difference(point.micro[0, f], drawn.micro[:, f], int(held.pool[f]), level)
        for f, name in enumerate(FIGURES)
    }
    images = {}
    for f, name in enumerate(IMAGES):
        units = held.known if name in ("exact_match", "hamming_loss") else held.positive
        still = not is_moved(drawn.images[:, f][~np.isnan(drawn.images[:, f])])
        images[name] = _difference(point.images[0, f], drawn.images[:, f], units, level)
        if name == "coverage_error" and still and abs(point.images[0, f]) > 1e-12:
            images[name]["interval"] = None
    samples = {name: images.pop(name) for name in DECISIONS}
    rows = [
        {
            "name": name,
            **dict(zip(FIGURES, each[a], strict=True)),
            "p_adjusted": None if p is None else float(p),
            "changed": None if p is None else bool(p <= 1 - level),
        }
        for a, (name, p) in enumerate(zip(names, _adjusted(point, drawn, held), strict=True))
    ]
    return {"macro": macro, "micro": micro, "samples": samples, **images, "attributes": rows}


def _difference(
    point: float, drawn: FloatArray, units: int, level: float, spread: tuple[float, float] | None = None
) -> dict[str, Any]:
    if np.isnan(point):
        return {"difference": None, "interval": None}
    defined = drawn[~np.isnan(drawn)]
    if units < LEAST_UNITS or len(defined) < max(2, LEAST_DEFINED * len(drawn)):
        return {"difference": float(point), "interval": None}
    if not is_moved(defined):
        reach = reach_of_none(units, level) if abs(point) > 1e-12 else 0.0
        low, high = max(float(point) - reach, -1.0), min(float(point) + reach, 1.0)
        return {"difference": float(point), "interval": [low, high]}
    k, freedom = spread or (np.sqrt(units / (units - 1)), units - 1)
    middle = 2 * float(point) - float(defined.mean())
    reach = k * quantile(level, freedom) * float(defined.std(ddof=1))
    low, high = min(middle - reach, float(point)), max(middle + reach, float(point))
    return {"difference": float(point), "interval": [float(low), float(high)]}


def _adjusted(point: Replicates, drawn: Replicates, held: Evidence) -> list[float | None]:
    """The smaller of each attribute's two Holm-adjusted p; None where neither was tested."""
    columns = [FIGURES.index(name) for name in JUDGED]
    p = np.array(
        [
            [
                _p_value(point.attributes[0, a, f], drawn.attributes[:, a, f], int(held.attributes[a, f]))
                for f in columns
            ]
            for a in range(len(held.attributes))
        ]
    ).reshape(-1, len(columns))
    tested = ~np.isnan(p)
    adjusted = np.full(p.shape, np.inf)
    adjusted[tested] = _holm(p[tested])
    return [float(row.min()) if np.isfinite(row).any() else None for row in adjusted]


def _p_value(point: float, drawn: FloatArray, units: int) -> float:
    """Two-sided p that a difference is 0; NaN where it cannot be tested."""
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(point) or units < LEAST_UNITS or len(defined) < max(2, LEAST_DEFINED * len(drawn)):
        return float("nan")
    if not is_moved(defined):
        return 1.0 if abs(point) < 1e-12 else 2 * 0.5**units
    error = float(np.sqrt(units / (units - 1))) * float(defined.std(ddof=1))
    from scipy.special import stdtr

    return 2 * float(stdtr(units - 1, -abs(point) / error))


def _holm(p: FloatArray) -> FloatArray:
    """Holm's (1979) adjusted p-values, in the order given."""
    order = np.argsort(p)
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted
