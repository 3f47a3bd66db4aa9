"""Owns the line on the logits that calibrates: applied and inverted, light to import for prediction."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import row_blocks
from mlcls.scoring.platt import HIGHEST, LOWEST, logits_of, sigmoid

FloatArray = NDArray[np.float64]

NEVER = float(np.nextafter(np.float32(1), np.float32(2)))  # the threshold that no score passes
NEAR = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """A line on the logits of each attribute: calibrated logit = slope * logit + intercept.

    Attributes:
        slope: float64 [A], finite and above 0, so that no two images change places.
        intercept: float64 [A], finite.

    Raises:
        ValueError: anything else.
    """

    slope: FloatArray
    intercept: FloatArray

    def __post_init__(self) -> None:
        slope = np.array(self.slope, dtype=np.float64)
        intercept = np.array(self.intercept, dtype=np.float64)
        if slope.ndim != 1 or slope.shape != intercept.shape:
            raise ValueError(f"slope and intercept must both be [A]; got {slope.shape} and {intercept.shape}")
        if not (np.isfinite(slope) & np.isfinite(intercept) & (slope > 0)).all():
            raise ValueError("calibration: slopes must be finite and above 0, intercepts finite")
        object.__setattr__(self, "slope", slope)
        object.__setattr__(self, "intercept", intercept)

    def apply(self, scores: ArrayLike) -> NDArray[np.float32]:
        """Raw probabilities -> calibrated ones, float32 of the same shape [..., A], within [0, 1].

        Never decreasing in the score, and equal scores stay equal. A score of exactly 0 or 1 is taken for
        the number farthest from it that float32 would still round to it.
        """
        scores = np.asarray(scores)
        calibrated = np.empty(np.broadcast_shapes(scores.shape, self.slope.shape), dtype=np.float32)
        if scores.ndim != 2 or scores.shape[1] != len(self.slope):
            calibrated[...] = self._line(scores)
            return calibrated
        for rows in row_blocks(scores.shape):
            calibrated[rows] = self._line(scores[rows])
        return calibrated

    def _line(self, scores: NDArray[Any]) -> FloatArray:
        return sigmoid(logits_of(scores) * self.slope + self.intercept)

    def invert(self, probabilities: ArrayLike) -> FloatArray:
        """Calibrated probabilities [..., A] -> raw ones, float64: thresholds back on the scale of raw scores.

        `raw >= invert(t)` decides as `apply(raw) >= t` does, but for scores that rounding to float32 cannot
        tell from t. At most 0 becomes 0 (every score passes), above 1 stays as it is (none does); so do thresholds
        that the calibrated scores of 0 and of 1 all reach, or none of them.
        """
        wanted = np.asarray(probabilities, dtype=np.float64)
        raw = sigmoid((logits_of(wanted) - self.intercept) / self.slope)
        # scores of exactly 0 and 1 stand for LOWEST and HIGHEST: a threshold beyond is passed by all, or by none
        raw = np.where(raw < LOWEST * (1 + NEAR), 0.0, raw)
        raw = np.where(1 - raw < (1 - HIGHEST) * (1 - NEAR), NEVER, raw)
        return np.where(wanted > 1, wanted, np.where(wanted <= 0, 0.0, raw))


def identity(attributes: int) -> Calibration:
    """The calibration of `attributes` attributes that changes nothing."""
    return Calibration(np.ones(attributes), np.zeros(attributes))
