"""Owns calibration: probabilities that mean something, by a known shift and a ridge Platt scaling of each attribute."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.calibration_error import figures_of, with_means
from mlcls.scoring.cells import (
    BoolArray,
    attribute_names,
    checked_cells,
    known_sides,
)
from mlcls.scoring.crossfit import FOLDS, divide
from mlcls.scoring.line import Calibration as Calibration
from mlcls.scoring.line import identity as identity
from mlcls.scoring.platt import fit_lines, logits_of

FloatArray = NDArray[np.float64]

RIDGE_SLOPE, RIDGE_INTERCEPT = 5.0, 3.0  # chosen in benchmarks/calibration.py
LEAST = 2  # known positives, and negatives: from one, nothing could be held out to judge the fit
BLOCK = 1 << 16  # cells fitted at a time, a column at least: narrow sums over rows are slow


def known_shift(
    pos_weight: ArrayLike | None = None,
    *,
    loss: str = "bce",
    negative: ArrayLike | None = None,
    unknown: ArrayLike | None = None,
) -> FloatArray | None:
    """What to add to the logits because of how the network was trained, as far as that is known.

    Cross-entropy with the weight w on the present is least at p / (1 - p) = w * odds, so that logits are too high
    by log w (Elkan 2001, "The foundations of cost-sensitive learning"): the shift is -log w.

    Where unknown cells were trained as absent, the network learned P(known to be present), which is
    c * P(present) with c the share of the positives that are known (Elkan & Noto 2008). c itself cannot be had
    from labels of which only positives were recorded. Known negatives say more: among them and the known
    positives the odds are larger by (negative + unknown) / negative, so its logarithm is added. That is exact
    where unknown images look like known negatives, and close where the attribute is rare; the line that is
    fitted afterwards mends the rest. An attribute without a known negative gets nothing for it.

    Args:
        pos_weight: [A], as the loss had it; None for none.
        loss: only `bce` has a known shift: focal and asl change the slope too, by the data.
        negative, unknown: [A] counts of the training cells, where unknown were trained as absent.

    Returns:
        float64 [A], or None when nothing is known. What a sampler changed is not in it.
    """
    if loss != "bce" or (pos_weight is None and unknown is None):
        return None
    shift: FloatArray = -np.log(np.asarray(1.0 if pos_weight is None else pos_weight, dtype=np.float64))
    if negative is not None and unknown is not None:
        recorded, counted = np.asarray(negative, np.float64), np.asarray(unknown, np.float64)
        ratio = np.divide(recorded + counted, recorded, out=np.ones_like(recorded), where=recorded > 0)
        shift = shift + np.log(ratio)
    return shift


def fit_calibration(
    labels: ArrayLike,
    scores: ArrayLike,
    shift: ArrayLike | None = None,
    *,
    ridge_slope: float = RIDGE_SLOPE,
    ridge_intercept: float = RIDGE_INTERCEPT,
) -> Calibration:
    """Platt scaling (1999) of each attribute, held near the known shift by a ridge.

    With z = logit(score) + shift, the calibrated logit is slope * (z - pivot) + pivot + b; slope and b
    minimise the cross-entropy summed over known cells, plus ridge_slope / 2 * log(slope)^2 +
    ridge_intercept / 2 * b^2. The slope is above 0 by its logarithm, in which 1/2 is as far as 2. The pivot is the
    mean of z weighted by p (1 - p): where slope and b hardly depend on each other, so that each is held by
    its own ridge. With few positives the shift all but stands alone, with many the ridge is nothing.

    Args:
        labels: [N, A] of the validation subset, 0 absent, 1 present, NaN unknown.
        scores: [N, A] raw probabilities.
        shift: [A], from `known_shift`; None for 0.
        ridge_slope, ridge_intercept: above 0.

    Returns:
        An attribute with fewer than two known positives or negatives has slope 1, and the shift as intercept.

    Raises:
        ValueError: shapes that do not fit, or a label other than 0, 1 and NaN.
        NumericalError: a score is NaN.
    """
    labels, scores = checked_cells(labels, scores)
    shifts = _shifts(shift, scores.shape[1])
    slope, intercept = np.ones(len(shifts)), shifts.copy()
    for some in _column_blocks(scores.shape):
        sides, one = known_sides(labels[:, some]), scores[:, some]
        fitted = _fit(*sides, one, shifts[some], (ridge_slope, ridge_intercept))
        slope[some], intercept[some] = fitted.slope, fitted.intercept
    return Calibration(slope, intercept)


def out_of_fold(
    labels: ArrayLike,
    scores: ArrayLike,
    shift: ArrayLike | None = None,
    *,
    folds: int = FOLDS,
    groups: ArrayLike | None = None,
    seed: int = 0,
    ridge_slope: float = RIDGE_SLOPE,
    ridge_intercept: float = RIDGE_INTERCEPT,
) -> NDArray[np.float32]:
    """Calibrated scores of known cells that had no part in their calibration: for figures, before and after.

    Each attribute's known cells are dealt into folds by `crossfit.divide`, groups whole; a fold is calibrated by
    the fit on the others. An attribute that cannot be divided has the shift alone. Unknown cells, which no
    figure sees, have the fit on all.

    Args:
        labels, scores, shift, ridge_slope, ridge_intercept: as in `fit_calibration`.
        folds: at least 2; fewer for an attribute with fewer positives or negatives.
        groups: [N], equal for images that belong together, or None.
        seed: of the division.

    Returns:
        float32 [N, A].
    """
    labels, scores = checked_cells(labels, scores)
    shifts, units = _shifts(shift, scores.shape[1]), _units(groups, len(scores))
    calibrated = np.empty(scores.shape, dtype=np.float32)
    ridge = ridge_slope, ridge_intercept
    for some, part in _held_out(labels, scores, shifts, units, folds, seed, ridge):
        calibrated[:, some] = part
    return calibrated


def out_of_fold_figures(
    labels: ArrayLike,
    scores: ArrayLike,
    shift: ArrayLike | None = None,
    attributes: Sequence[str] | None = None,
    *,
    folds: int = FOLDS,
    groups: ArrayLike | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """`calibration_figures` of the scores of `out_of_fold`, which are never all in memory. Arguments as in both."""
    labels, scores = checked_cells(labels, scores)
    shifts, units = _shifts(shift, scores.shape[1]), _units(groups, len(scores))
    names = attribute_names(attributes, scores.shape[1])
    rows: list[dict[str, Any]] = []
    for some, part in _held_out(labels, scores, shifts, units, folds, seed, (RIDGE_SLOPE, RIDGE_INTERCEPT)):
        rows += figures_of(labels[:, some], part, names[some])
    return with_means(rows)


def _held_out(
    labels: NDArray[Any],
    scores: NDArray[Any],
    shifts: FloatArray,
    units: NDArray[np.int64],
    folds: int,
    seed: int,
    ridge: tuple[float, float],
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """What `out_of_fold` gives, a few columns at a time."""
    if folds < 2:
        raise ValueError(f"folds must be at least 2; got {folds}")
    random = np.random.default_rng(seed)
    for some in _column_blocks(scores.shape):
        present, absent = known_sides(labels[:, some])
        one, moved = scores[:, some], shifts[some]
        dealt = [divide(*sides, units, folds, random) for sides in zip(present.T, absent.T, strict=True)]
        held, made = np.stack([part for part, _ in dealt], axis=1), np.array([count for _, count in dealt])
        calibrated = _fit(present, absent, one, moved, ridge).apply(one)
        for fold in range(int(made.max(initial=0))):
            out = held == fold
            fitted = _fit(present & ~out, absent & ~out, one, moved, ridge).apply(one)
            calibrated[out] = fitted[out]
        whole = made == 0
        calibrated[:, whole] = Calibration(np.ones(len(moved)), moved).apply(one)[:, whole]
        yield some, calibrated


def _units(groups: ArrayLike | None, rows: int) -> NDArray[np.int64]:
    if groups is None:
        return np.arange(rows)
    return np.unique(np.asarray(groups), return_inverse=True)[1].astype(np.int64)


def _shifts(shift: ArrayLike | None, attributes: int) -> FloatArray:
    shifts = np.zeros(attributes) if shift is None else np.asarray(shift, dtype=np.float64)
    if shifts.ndim and shifts.shape != (attributes,):
        raise ValueError(f"shift must be [{attributes}], one an attribute; got {shifts.shape}")
    return np.array(np.broadcast_to(shifts, (attributes,)))


def _column_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Slices of the columns of [N, A], a few at a time, so that float64 of them stay small."""
    width = max(1, BLOCK // max(1, shape[0]))
    for start in range(0, shape[1], width):
        yield slice(start, min(start + width, shape[1]))


def _fit(
    present: BoolArray,
    absent: BoolArray,
    scores: NDArray[Any],
    shifts: FloatArray,
    ridge: tuple[float, float],
) -> Calibration:
    """`fit_calibration` of a few columns."""
    slope, intercept = np.ones(len(shifts)), shifts.copy()
    enough = (present.sum(axis=0) >= LEAST) & (absent.sum(axis=0) >= LEAST)
    if len(shifts) == 1:  # a long column: its known cells alone
        known = (present | absent)[:, 0]
        present, absent, scores = present[known], absent[known], scores[known]
    if enough.any():
        some = slice(None) if enough.all() else enough  # a slice makes no copy
        logits = logits_of(scores[:, some]) + shifts[some]
        line = fit_lines(present[:, some], absent[:, some], logits, np.array(ridge))
        slope[some], intercept[some] = line[0], line[0] * shifts[some] + line[1]
    return Calibration(slope, intercept)
