"""Owns the fit of Platt's line: logits and labels of each attribute -> slope and intercept, held by a ridge."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import BoolArray

FloatArray = NDArray[np.float64]

LOWEST = 2.0**-150  # half of the least float32 above 0
HIGHEST = 1 - 2.0**-25  # midway between 1 and the float32 before it
STEPS, HALVINGS = 100, 30
CONVERGED = 1e-6  # of the summed cross-entropy, promised by the last step that was taken
LONGEST = 2.0  # step of the slope's logarithm


def fit_lines(present: BoolArray, absent: BoolArray, logits: FloatArray, ridge: FloatArray) -> FloatArray:
    """The line that `calibration.fit_calibration` describes, by Fisher scoring with halved steps.

    Args:
        present, absent: [N, A], the known cells of either class.
        logits: float64 [N, A], finite.
        ridge: [2], of log(slope) and of the intercept at the pivot, above 0.

    Returns:
        [2, A]: slope and intercept, to be applied to these logits.
    """
    known = present | absent
    weight = _variance(sigmoid(logits), known)
    pivot = (weight * logits).sum(axis=0) / np.maximum(weight.sum(axis=0), np.finfo(np.float64).tiny)
    away = np.where(known, logits - pivot, 0.0)

    def cost(line: FloatArray) -> FloatArray:
        f = np.exp(line[0]) * away + (pivot + line[1])
        softplus = np.maximum(f, 0.0) + np.log1p(np.exp(-np.abs(f)))
        losses = np.where(known, softplus - present * f, 0.0).sum(axis=0)
        return np.asarray(losses + ridge @ line**2 / 2)

    line = np.zeros((2, logits.shape[1]))  # log(slope) and b
    least = cost(line)
    for _ in range(STEPS):
        step, promised = _scoring_step(line, present, known, away, pivot, ridge)
        step /= np.maximum(1.0, np.abs(step[0]) / LONGEST)
        for _ in range(HALVINGS):
            found = cost(line + step)
            worse = (found > least) & (promised >= CONVERGED)  # what rounding makes worse is not halved
            if not worse.any():
                break
            step[:, worse] /= 2
        step[:, found > least] = 0.0  # all that is left to gain is lost in rounding
        line, least = line + step, np.minimum(found, least)
        if ((promised < CONVERGED) | (step == 0).all(axis=0)).all():
            break
    slope = np.exp(line[0])
    return np.stack([slope, pivot + line[1] - slope * pivot])


def _scoring_step(
    line: FloatArray,
    present: BoolArray,
    known: BoolArray,
    away: FloatArray,
    pivot: FloatArray,
    ridge: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """The step [2, A] against the gradient by the expected curvature, and what it promises to gain [A]."""
    reach = np.exp(line[0]) * away
    p = sigmoid(reach + (pivot + line[1]))
    wrong, weight = np.where(known, p - present, 0.0), _variance(p, known)
    gradient = np.stack([(wrong * reach).sum(axis=0), wrong.sum(axis=0)]) + ridge[:, None] * line
    uu = (weight * reach**2).sum(axis=0) + ridge[0]
    ub, bb = (weight * reach).sum(axis=0), weight.sum(axis=0) + ridge[1]
    step = -np.stack([bb * gradient[0] - ub * gradient[1], uu * gradient[1] - ub * gradient[0]])
    step /= uu * bb - ub**2
    return step, -(gradient * step).sum(axis=0)


def _variance(p: FloatArray, known: BoolArray) -> FloatArray:
    return np.where(known, p * (1 - p), 0.0)


def logits_of(scores: ArrayLike) -> FloatArray:
    """Probabilities of any shape -> logits, float64 and finite: 0 and 1 are moved as little as float32 would notice."""
    p = np.clip(np.asarray(scores, dtype=np.float64), LOWEST, HIGHEST)
    logits: FloatArray = np.log(p) - np.log1p(-p)
    return logits


def sigmoid(logits: FloatArray) -> FloatArray:
    """Logits of any shape -> probabilities; never overflows, since exp is taken of numbers at most 0."""
    small = np.exp(-np.abs(logits))
    values: FloatArray = np.where(logits >= 0, 1.0, small) / (1.0 + small)
    return values
