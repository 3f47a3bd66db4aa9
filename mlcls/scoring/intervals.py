"""Owns the intervals: how far each figure could lie from the truth, given how few images it rests on.

A plain percentile bootstrap holds the truth too rarely here: average precision flatters in small samples and
flatters once more in every resample, and a handful of positives has too little spread. So the interval is

    sin^2( 2 a(x) - mean a(x*) -+ k t sd a(x*) ),   a(x) = arcsin sqrt(x)

of the figure x and its bootstrap replicates x*: the variance-stabilising scale of a proportion, on which an
interval stays within 0 and 1; the bootstrap's own estimate of the bias taken off (Efron & Tibshirani 1993,
An Introduction to the Bootstrap, section 10.2); Student's t with n - 1 degrees of freedom and k^2 = n/(n - 1)
for the narrowness of the bootstrap in small samples (Hesterberg 2015, What teachers should know about the
bootstrap), where n counts the images (or groups) of the attribute's rarer class. For a macro figure k^2 and
the degrees of freedom are those of a mean of attributes (Welch 1947, Satterthwaite 1946).
`benchmarks/intervals.py` measures how often the truth is held.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from mlcls.scoring.cells import BoolArray, known_cells
from mlcls.scoring.metrics import FIGURES
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

    Attributes:
        attributes: int [A], units with a known cell of the attribute's rarer class.
        pool: the same of all known cells together.
        known, positive: units with a known cell, with a known positive.
    """

    attributes: NDArray[np.int64]
    pool: int
    known: int
    positive: int


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
    resamples define it, and for an attribute or pool with one image (or group) of the rarer class.

    A figure of exactly 0 or 1 that no resample moves gets the exact bound of n successes in n trials,
    (1 - level)/2 to the power 1/n, in place of an interval of no width: nothing wrong in 10 images is not
    perfection. Macro figures that no resample moves get the mean of their attributes' intervals.

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
    held = evidence(labels, scores, groups)
    each = [
        [
            one_interval(x, drawn.attributes[:, a, f], int(held.attributes[a]), level)
            for f, x in enumerate(figures)
        ]
        for a, figures in enumerate(point.attributes[0])
    ]
    overall = {
        "level": level,
        "resamples": resamples,
        "unit": "images" if groups is None else "groups",
        "macro": _macro(point, drawn, held, each, level),
        "micro": {
            name: one_interval(point.micro[0, f], drawn.micro[:, f], held.pool, level)
            for f, name in enumerate(FIGURES)
        },
        **_image_intervals(point, drawn, held, level, scorer.attributes),
    }
    return Intervals(overall, [dict(zip(FIGURES, row, strict=True)) for row in each])


def evidence(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike | None) -> Evidence:
    """Count what the figures of `labels` rest on. Arguments as in `intervals`."""
    _, present, absent = known_cells(labels, scores)
    members, _ = group_members(groups, len(present))

    def count(cells: BoolArray) -> NDArray[np.int64]:
        """Units with such a cell, of each column."""
        return np.array([len(np.unique(members[column])) for column in cells.T], dtype=np.int64)

    positive, negative = present.any(axis=1), absent.any(axis=1)
    some = count(np.stack([positive, negative, positive | negative], axis=1)).tolist()
    return Evidence(np.minimum(count(present), count(absent)), min(some[:2]), some[2], some[0])


def one_interval(
    point: float,
    drawn: FloatArray,
    units: int,
    level: float,
    *,
    widening: float | None = None,
    freedom: float | None = None,
) -> Interval | None:
    """The interval of a figure within 0 and 1, see the module's docstring.

    Args:
        point: the figure; NaN where undefined.
        drawn: [R], its replicates, NaN where undefined.
        units: n, from which the widening k and the degrees of freedom follow unless they are given.
        level: the share of such intervals that should hold the truth.
    """
    defined = drawn[~np.isnan(drawn)]
    if np.isnan(point) or units < LEAST_UNITS or len(defined) < max(2, LEAST_DEFINED * len(drawn)):
        return None
    if not is_moved(defined):
        reach = reach_of_none(units, level)
        return [float(point - reach * (point == 1)), float(point + reach * (point == 0))]
    turned, centre = _arcsine(defined), float(_arcsine(point))
    middle = 2 * centre - float(turned.mean())
    k = np.sqrt(units / (units - 1)) if widening is None else widening
    reach = k * quantile(level, units - 1 if freedom is None else freedom) * float(turned.std(ddof=1))
    low, high = np.sin(np.clip([middle - reach, middle + reach], 0, np.pi / 2)) ** 2
    return [min(float(low), float(point)), max(float(high), float(point))]


def mean_spread(drawn: FloatArray, units: NDArray[np.int64]) -> tuple[float, float]:
    """The widening k and the degrees of freedom of a mean of attributes.

    Each attribute's bootstrap variance v stands for v n/(n - 1) with n - 1 degrees of freedom; n below 2
    counts as 2. k^2 is the ratio of the sums; the degrees of freedom are Welch and Satterthwaite's.

    Args:
        drawn: [R, A] replicates of the attributes' figures, NaN where undefined.
        units: [A], of the rarer class.
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
    return float(np.sqrt(wide.sum() / v.sum())), float(wide.sum() ** 2 / (wide**2 / (n - 1)).sum())


def is_moved(drawn: FloatArray) -> bool:
    """Whether resampling changes a figure by more than the rounding of its sums."""
    return bool(np.ptp(drawn) > 1e-12)


def reach_of_none(units: int, level: float) -> float:
    """How far from 0 a share can lie that was 0 in n of n trials: Clopper and Pearson's (1934) bound."""
    return float(1 - ((1 - level) / 2) ** (1 / units))


def quantile(level: float, freedom: float) -> float:
    """Student's t that a level leaves (1 - level)/2 above."""
    return float(stdtrit(min(freedom, 1e9), (1 + level) / 2))


def _macro(
    point: Replicates,
    drawn: Replicates,
    held: Evidence,
    each: Sequence[Sequence[Interval | None]],
    level: float,
) -> dict[str, Interval | None]:
    found: dict[str, Interval | None] = {}
    used = ~np.isnan(point.attributes[0, :, 0])
    for f, name in enumerate(FIGURES):
        figure, macro = float(point.macro[0, f]), drawn.macro[:, f]
        units = int(held.attributes.sum())
        if used.any() and not np.isnan(macro).any() and not is_moved(macro):
            parts = [row[f] or [0.0, 1.0] for row, use in zip(each, used, strict=True) if use]
            low, high = np.mean(parts, axis=0)
            found[name] = [min(float(low), figure), max(float(high), figure)]
            continue
        k, freedom = mean_spread(drawn.attributes[:, :, f], held.attributes)
        found[name] = one_interval(figure, macro, units, level, widening=k, freedom=freedom)
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
