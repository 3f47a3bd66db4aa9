"""Owns the intervals: how far each figure could lie from the truth, given how few images it rests on.

A plain percentile bootstrap holds the truth too rarely here: average precision flatters in small samples and
flatters once more in every resample, and a handful of positives has too little spread. So the interval is

    sin^2( 2 a(x) - mean a(x*) -+ k t sd a(x*) ),   a(x) = arcsin sqrt(x)

of the figure x and its bootstrap replicates x*: the variance-stabilising scale of a proportion, on which an
interval stays within 0 and 1; the bootstrap's own estimate of the bias taken off (Efron & Tibshirani 1993,
An Introduction to the Bootstrap, section 10.2); Student's t with n - 1 degrees of freedom and k^2 = n/(n - 1)
for the narrowness of the bootstrap in small samples (Hesterberg 2015, What teachers should know about the
bootstrap), where n counts the images (or groups) of the attribute's rarer class; for precision, whose trials
are the cells predicted present, no more than hold one of those. For a macro figure k^2 and the degrees of
freedom are those of a mean of attributes (Welch 1947, Satterthwaite 1946), the latter at most what the distinct
images of all attributes allow: attributes that are present on the same few images are no independent evidence.
`benchmarks/intervals.py` measures how often the truth is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray, is_present, known_cells
from mlcls.scoring.metrics import FIGURES, thresholds_per_attribute
from mlcls.scoring.resampling import IMAGES, Replicates, Scorer, group_members, replicates
from mlcls.scoring.sample_metrics import DECISIONS

FloatArray = NDArray[np.float64]
Interval = list[float]

RESAMPLES = 1000
LEVEL = 0.95
LEAST_DEFINED = 0.5  # the share of resamples that must define a figure
LEAST_UNITS = 2  # images (or groups) of either class: of one alone nothing is known about the spread


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of every figure, as plain values ready for JSON.

    Attributes:
        overall: `level`, `resamples`, `unit` ("images" or "groups"), `macro` and `micro` (the six `FIGURES`),
            `samples` (four), `hamming_loss`, `exact_match`, `coverage_error`,
            `label_ranking_average_precision`: each `[low, high]` or None.
        attributes: A dicts of the six `FIGURES`, each `[low, high]` or None.
    """

    overall: dict[str, Any]
    attributes: list[dict[str, Interval | None]]


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """What the figures rest on, counted in units of drawing: images, or groups.

    Each of the first three has a column for each of the `FIGURES`: the units with a known cell of the rarer
    class, for precision no more than the units with a known cell predicted present.

    Attributes:
        attributes: int [A, 6], of each attribute.
        pool: int [6], of all known cells together.
        distinct: int [6], of any attribute that has both classes: a unit counts once however many it carries.
        known, positive: units with a known cell, with a known positive.
        answered: int [A], units with a known cell that is present or predicted so (by any of the models), and
        answered_pool: of any attribute; what an F1 of 0 was wrong in.
    """

    attributes: NDArray[np.int64]
    pool: NDArray[np.int64]
    distinct: NDArray[np.int64]
    known: int
    positive: int
    answered: NDArray[np.int64]
    answered_pool: int


def intervals(
    labels: ArrayLike,
    scores: ArrayLike,
    thresholds: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> Intervals:
    """Bootstrap intervals of every figure of `metrics.evaluate`, at the thresholds given.

    Images are drawn with replacement, or whole groups where groups are given. An attribute that a resample
    leaves without a known positive or negative is left out of that resample's macro. An interval always
    holds the figure itself. It is None where the figure is undefined, where fewer than `LEAST_DEFINED` of the
    resamples define it, and for an attribute or pool with one image (or group) of the rarer class; for
    precision also where one image at most has a cell predicted present, and for a macro figure where every
    attribute's is None.

    A figure that no resample moves gets a bound in place of an interval of no width, for nothing wrong in 10
    images is not perfection: the figure plus and minus 1 - ((1 - level)/2)^(1/n), within its range. At 0 and
    1 that is the exact bound of n successes in n trials; between them, where all images are alike, it is how
    many images could be otherwise. An F1 of 0 gets 2 r/(1 + r) of that bound r: F1 is 2 J/(1 + J) of the
    share J of right cells among those present or predicted so. In a macro figure the attributes that no
    resample moves add the mean of their reaches, as if all erred together, to the resamples' by root of the
    sum of squares (the recovery of variances of Zou & Donner 2008).

    Args:
        labels, scores, thresholds: as in `metrics.evaluate`.
        groups: int [N], equal numbers for images that belong together, such as one person's.
        resamples: bootstrap resamples, 1 or more; below some 200 the intervals wobble.
        level: the share of such intervals that should hold the truth, between 0 and 1.
        seed: of the drawing; the same seed and rows give the same intervals.

    Raises:
        ValueError: shapes that do not fit, a level outside (0, 1), fewer than one resample.
        NumericalError: a score is NaN.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}")
    scorer = Scorer(labels, scores, thresholds)
    point = scorer.score(np.ones((1, scorer.images), dtype=np.int32))
    drawn = replicates(scorer, groups, resamples, seed)
    held = evidence(labels, [(scores, thresholds)], groups)
    each = [
        [
            one_interval(
                x,
                drawn.attributes[:, a, f],
                int(held.attributes[a, f]),
                level,
                answered=int(held.answered[a]) if name == "f1" else None,
            )
            for f, (name, x) in enumerate(zip(FIGURES, figures, strict=True))
        ]
        for a, figures in enumerate(point.attributes[0])
    ]
    overall = {
        "level": level,
        "resamples": resamples,
        "unit": "images" if groups is None else "groups",
        "macro": _macro(point, drawn, held, each, level),
        "micro": {
            name: one_interval(
                point.micro[0, f],
                drawn.micro[:, f],
                int(held.pool[f]),
                level,
                answered=held.answered_pool if name == "f1" else None,
            )
            for f, name in enumerate(FIGURES)
        },
        **_image_intervals(point, drawn, held, level, scorer.attributes),
    }
    return Intervals(overall, [dict(zip(FIGURES, row, strict=True)) for row in each])


def evidence(
    labels: ArrayLike, models: Sequence[tuple[ArrayLike, ArrayLike]], groups: ArrayLike | None
) -> Evidence:
    """Count what the figures of `labels` rest on.

    Args:
        labels, groups: as in `intervals`.
        models: `(scores, thresholds)`, one or more; of several, precision rests on the one that predicts the
            fewest units present.
    """
    _, present, absent = known_cells(labels, models[0][0])
    members, _ = group_members(groups, len(present))

    def count(cells: BoolArray) -> NDArray[np.int64]:
        """Units with such a cell, of each column."""
        return np.array([len(np.unique(members[column])) for column in cells.T], dtype=np.int64)

    def anywhere(cells: BoolArray) -> BoolArray:
        return np.asarray(cells.any(axis=1, keepdims=True), dtype=np.bool_)

    positives, negatives = count(present), count(absent)
    both = (positives > 0) & (negatives > 0)
    rarer = np.where(positives <= negatives, present, absent) & both
    pool = np.minimum(count(anywhere(present)), count(anywhere(absent)))
    trials = [np.minimum(positives, negatives), pool, count(anywhere(rarer))]
    predicted, answers = trials.copy(), present.copy()
    for scores, thresholds in models:
        hits = is_present(scores, thresholds_per_attribute(thresholds, len(both))) & (present | absent)
        answers |= hits
        counts = [count(hits), count(anywhere(hits)), count(anywhere(hits & both))]
        predicted = [np.minimum(one, other) for one, other in zip(predicted, counts, strict=True)]
    each, pooled, distinct = (
        np.stack([few if name == "precision" else all_ for name in FIGURES], axis=1)
        for few, all_ in zip(predicted, trials, strict=True)
    )
    known, positive = (int(count(anywhere(cells))[0]) for cells in (present | absent, present))
    return Evidence(
        each, pooled[0], distinct[0], known, positive, count(answers), int(count(anywhere(answers))[0])
    )


def one_interval(
    point: float,
    drawn: FloatArray,
    units: int,
    level: float,
    *,
    widening: float | None = None,
    freedom: float | None = None,
    answered: int | None = None,
) -> Interval | None:
    """The interval of a figure within 0 and 1, see the module's docstring.

    Args:
        point: the figure; NaN where undefined.
        drawn: [R], its replicates, NaN where undefined.
        units: n, from which the widening k and the degrees of freedom follow unless they are given.
        level: the share of such intervals that should hold the truth.
        answered: of an F1, the units that are present or predicted so: what it was wrong in where it is 0.
    """
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(point) or units < LEAST_UNITS or len(defined) < max(2, LEAST_DEFINED * len(drawn)):
        return None
    if not is_moved(defined):
        reach = reach_of_none(units, level)
        if answered and point == 0:
            reach = reach_of_none(answered, level)
            reach = 2 * reach / (1 + reach)
        return [max(float(point) - reach, 0.0), min(float(point) + reach, 1.0)]
    turned, centre = _arcsine(defined), float(_arcsine(point))
    middle = 2 * centre - float(turned.mean())
    k = np.sqrt(units / (units - 1)) if widening is None else widening
    reach = k * quantile(level, units - 1 if freedom is None else freedom) * float(turned.std(ddof=1))
    low, high = np.sin(np.clip([middle - reach, middle + reach], 0, np.pi / 2)) ** 2
    return [min(float(low), float(point)), max(float(high), float(point))]


def mean_spread(drawn: FloatArray, units: NDArray[np.int64], distinct: int) -> tuple[float, float]:
    """The widening k and the degrees of freedom of a mean of attributes.

    Each attribute's bootstrap variance v stands for v n/(n - 1) with n - 1 degrees of freedom; n below 2
    counts as 2. k^2 is the ratio of the sums; the degrees of freedom are Welch and Satterthwaite's, which
    take the attributes to be independent, but no more than the distinct units less one.

    Args:
        drawn: [R, A] replicates of the attributes' figures, NaN where undefined.
        units: [A], of the rarer class.
        distinct: units of any attribute's rarer class.
    """
    n = np.maximum(units[units > 0], 2)
    part = drawn[:, units > 0]
    counted = ~np.isnan(part)
    sizes = np.maximum(counted.sum(axis=0), 1)
    means = np.where(counted, part, 0).sum(axis=0) / sizes
    plain = np.where(counted, part - means, 0)
    v = (plain**2).sum(axis=0) / sizes
    if not v.sum() > 0:
        return 1.0, float("inf")
    wide = v * n / (n - 1)
    freedom = float(wide.sum() ** 2 / (wide**2 / (n - 1)).sum())
    return float(np.sqrt(wide.sum() / v.sum())), min(freedom, max(distinct - 1.0, 1.0))


def add_still(
    figure: float,
    interval: Interval | None,
    points: FloatArray,
    drawn: FloatArray,
    parts: Sequence[Interval | None],
    range_: tuple[float, float],
) -> Interval | None:
    """The interval of a mean of attributes, widened by the attributes that no resample moves.

    Args:
        figure: the mean.
        interval: of the mean by its own replicates, which know nothing of the attributes that stay put.
        points: [A], what it is the mean of; a NaN (a precision without a prediction) counts as 0.
        drawn: [R, A], their replicates, NaN where undefined.
        parts: A intervals; None is anything in the range, but where all are None nothing is known.
        range_: lowest and highest value of a figure.
    """
    if all(part is None for part in parts):
        return None
    still = [not is_moved(column[~np.isnan(column)]) for column in drawn.T]
    if all(still):
        interval = [figure, figure]
    if interval is None:
        return None
    ends = np.array([part or range_ for part, stays in zip(parts, still, strict=True) if stays]).reshape(
        -1, 2
    )
    down, up = np.abs(ends - np.nan_to_num(points[still])[:, None]).sum(axis=0) / len(parts)
    low, high = figure - np.hypot(figure - interval[0], down), figure + np.hypot(interval[1] - figure, up)
    return [min(max(float(low), range_[0]), figure), max(min(float(high), range_[1]), figure)]


def is_moved(drawn: FloatArray) -> bool:
    """Whether resampling changes a figure by more than the rounding of its sums."""
    return bool(drawn.size and np.ptp(drawn) > 1e-12)


def reach_of_none(units: int, level: float) -> float:
    """How far from 0 a share can lie that was 0 in each of n trials: Clopper and Pearson's (1934) bound."""
    return float(1 - ((1 - level) / 2) ** (1 / units))


def quantile(level: float, freedom: float) -> float:
    """Student's t that a level leaves (1 - level)/2 above."""
    from scipy.special import stdtrit  # here: a training waits for it before its first epoch otherwise

    return float(stdtrit(min(freedom, 1e9), (1 + level) / 2))


def _macro(
    point: Replicates,
    drawn: Replicates,
    held: Evidence,
    each: Sequence[Sequence[Interval | None]],
    level: float,
) -> dict[str, Interval | None]:
    found: dict[str, Interval | None] = {}
    used = ~np.isnan(point.attributes[0, :, -1])
    for f, name in enumerate(FIGURES):
        figure, units = float(point.macro[0, f]), int(held.distinct[f])
        columns = drawn.attributes[:, used, f]
        k, freedom = mean_spread(columns, held.attributes[used, f], units)
        interval = one_interval(figure, drawn.macro[:, f], units, level, widening=k, freedom=freedom)
        parts = [row[f] for row, use in zip(each, used, strict=True) if use]
        found[name] = add_still(figure, interval, point.attributes[0, used, f], columns, parts, (0.0, 1.0))
    return found


def _image_intervals(
    point: Replicates, drawn: Replicates, held: Evidence, level: float, attributes: int
) -> dict[str, Any]:
    found: dict[str, Interval | None] = {}
    for f, name in enumerate(IMAGES):
        units = held.known if name in ("exact_match", "hamming_loss") else held.positive
        low, span = (1, attributes - 1) if name == "coverage_error" else (0, 1)  # 1 to A, or a share
        size = max(1, span)
        share, shares = float(point.images[0, f] - low) / size, (drawn.images[:, f] - low) / size
        scaled = one_interval(share, shares, units, level)
        found[name] = scaled and [low + span * bound for bound in scaled]
    return {"samples": {name: found.pop(name) for name in DECISIONS}, **found}


def _arcsine(figure: Any) -> FloatArray:
    return np.asarray(np.arcsin(np.sqrt(np.clip(figure, 0, 1))), dtype=np.float64)
