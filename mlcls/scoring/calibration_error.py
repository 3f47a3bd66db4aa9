"""Owns how far probabilities are from what is observed: expected calibration error and Brier score."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlcls.scoring.cells import attribute_names, checked_cells, known_sides

FloatArray = NDArray[np.float64]

BINS = 10


def calibration_figures(
    labels: ArrayLike, scores: ArrayLike, attributes: Sequence[str] | None = None
) -> dict[str, Any]:
    """Expected calibration error and Brier score of each attribute over its known cells, and their means.

    Brier score: the mean of (score - label)^2. Expected calibration error: known cells in the order of
    their scores are cut into ten bins of equally many, equal scores kept together; the mean over cells of
    |mean score - share present| of their bin. Bins of equal mass (Nguyen & O'Connor 2015; Nixon et al. 2019)
    and not of equal width (Guo et al. 2017), since nearly all scores of a rare attribute lie in the lowest
    tenth. Chance alone makes it positive: with few cells compare two of them, do not read one.

    Args:
        labels: [N, A], 0 absent, 1 present, NaN unknown.
        scores: [N, A] probabilities in [0, 1].
        attributes: A names; `Attr1`, `Attr2`, ... when not given.

    Returns:
        `ece` and `brier`, means over the attributes with a known label (None where there is none), and
        `attributes`, a dict each: `name`, `ece`, `brier` (None without a known label).
    """
    labels, scores = checked_cells(labels, scores)
    names = attribute_names(attributes, scores.shape[1])
    return with_means(figures_of(labels, scores, names))


def figures_of(labels: NDArray[Any], scores: NDArray[Any], names: Sequence[str]) -> list[dict[str, Any]]:
    """`name`, `ece` and `brier` of each attribute."""
    rows: list[dict[str, Any]] = []
    for column, name in enumerate(names):
        present, absent = known_sides(labels[:, column])
        known = present | absent
        p, y = scores[known, column].astype(np.float64), present[known].astype(np.float64)
        brier = float(((p - y) ** 2).mean()) if len(p) else None
        rows.append({"name": name, "ece": _expected_error(p, y), "brier": brier})
    return rows


def with_means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Their means, and these rows as `attributes`."""
    defined = [row for row in rows if row["brier"] is not None]
    means = {
        name: sum(row[name] for row in defined) / len(defined) if defined else None
        for name in ("ece", "brier")
    }
    return {**means, "attributes": rows}


def _expected_error(p: FloatArray, y: FloatArray) -> float | None:
    """Expected calibration error of one attribute's known cells: scores and labels [n]; None for none."""
    if not len(p):
        return None
    # the bin of a score is that of the first cell that has it
    bins = np.searchsorted(np.sort(p), p, side="left") * BINS // len(p)
    return float(np.abs(np.bincount(bins, weights=p - y)).sum() / len(p))
