"""Owns the division of rows into folds: each row in exactly one, groups whole, every label spread evenly."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mlcls.errors import RecipeError, TableError
from mlcls.labels.stratify import stratify

LEAST = 2  # folds: of one alone nothing would be left to train on
SHOWN = 5  # attributes that get a note of their own


@dataclass(frozen=True, slots=True)
class Folds:
    """Where each row went.

    Attributes:
        of_row: int64 [n], from 0, the fold of each row.
        notes: sentences on what some fold lacks.
    """

    of_row: NDArray[np.int64]
    notes: tuple[str, ...] = ()


def fold_rows(
    labels: NDArray[np.float32],
    folds: int,
    *,
    groups: NDArray[np.int64] | None = None,
    seed: int = 0,
    attributes: Sequence[str] | None = None,
) -> Folds:
    """Divide rows at random into folds of equal size, each label's known positives and negatives spread evenly.

    Iterative stratification, as `split_table` has it: see `mlcls.labels.stratify`. A label that enough groups of
    rows show stands in each fold, if an exchange can bring that about.

    Args:
        labels: [n, A], 0 absent, 1 present, NaN unknown.
        folds: how many, 2 or more.
        groups: [n] rows of equal value never part; None: each row for itself.
        seed: a whole number from 0; the same arguments give the same folds.
        attributes: [A] names for the notes.

    Raises:
        RecipeError: fewer than two folds, or more than there are rows (or groups of rows).
        TableError: a fold without a single known label, which could not be validated on.
    """
    rows, count = labels.shape
    if folds < LEAST:
        raise RecipeError(f"--folds: expected {LEAST} or more (or 0: one network), got {folds}")
    ids = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1].reshape(-1)
    units = int(ids.max()) + 1 if rows else 0
    if units < folds:
        belong = f", which belong to {units} group{'s' * (units != 1)} that may not be torn" * (units < rows)
        raise RecipeError(
            f"--folds {folds}: there are {rows} images outside of the test subset{belong}; expected at most {units} "
            "folds"
        )
    placed = stratify(labels, ids, [1 / folds] * folds, seed)
    of_row = placed.subset_of_row
    for fold in range(folds):
        if np.isnan(labels[of_row == fold]).all():
            raise TableError(
                f"--folds {folds}: no label is known in fold {fold}, so nothing can be validated on it; use fewer "
                "folds, or label more images"
            )
    names = [f"attribute {index + 1}" for index in range(count)] if attributes is None else attributes
    return Folds(of_row, tuple(_lacking(labels, of_row, folds, names)))


def _lacking(
    labels: NDArray[np.float32], of_row: NDArray[np.int64], folds: int, names: Sequence[str]
) -> list[str]:
    """A sentence for each attribute that some fold has no known positive, or no known negative, of."""
    notes = []
    for value, kind in ((1, "showing it"), (0, "known not to show it")):
        held = np.zeros((folds, len(names)), dtype=np.int64)
        np.add.at(held, of_row, labels == value)
        without = (held == 0).sum(axis=0)
        affected = np.flatnonzero(without)
        for index in affected[:SHOWN]:
            images = int(held[:, index].sum())
            notes.append(
                f"'{names[index]}' has {images} image{'s' * (images != 1)} {kind} outside of the test subset: none in "
                f"{without[index]} of the {folds} folds"
            )
        if len(affected) > SHOWN:
            notes.append(f"{len(affected) - SHOWN} more attributes have no image {kind} in some fold")
    return notes
