"""Squares of attribute by attribute: their size, and what is written in their cells."""

import numpy as np
from numpy.typing import NDArray

from mlcls.reports.picture import short_count

FloatArray = NDArray[np.float64]
_MOST_WITH_COUNTS = 14  # attributes; with more a cell has room for its share alone
_MOST_WITH_SHARES = 40

# up to so many attributes: the side of a cell in inches, the size of the type in points
_SIZES = (
    (8, 0.8, 9.5), (_MOST_WITH_COUNTS, 0.64, 9.5), (_MOST_WITH_SHARES, 0.36, 9.0), (70, 0.16, 8.5), (120, 0.125, 7.5),
)  # fmt: skip
_MANY = (0.095, 6.0)


def square_sizes(count: int) -> tuple[float, float]:
    """The side of a cell in inches and the size of the type in points, for so many attributes."""
    return next(((side, size) for most, side, size in _SIZES if count <= most), _MANY)


def shares_of(part: NDArray[np.int64], whole: NDArray[np.int64]) -> FloatArray:
    """Part of whole, 0 to 1; NaN where the whole is nothing."""
    return np.asarray(np.where(whole > 0, part / np.maximum(whole, 1), np.nan), dtype=np.float64)


def tell_shares(shares: FloatArray, wholes: NDArray[np.int64]) -> list[list[str]] | None:
    """What stands in each cell [R][C]: the share and of how many, the share alone, or nothing where too many."""
    attributes = shares.shape[1]
    if attributes > _MOST_WITH_SHARES:
        return None
    return [
        [_tell(share, int(of), attributes) for share, of in zip(line, whole, strict=True)]
        for line, whole in zip(shares.tolist(), wholes, strict=True)
    ]


def _tell(share: float, of: int, attributes: int) -> str:
    if np.isnan(share):
        return ""
    return f"{share:.0%}\nof {short_count(of)}" if attributes <= _MOST_WITH_COUNTS else f"{100 * share:.0f}"
