"""The split that a recipe asks for: fractions, the table's own column, an earlier split, or tables of their own."""

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mlcls.labels.split import (
    Split,
    combine_groups,
    parse_fractions,
    read_split,
    split_by_column,
    split_table,
)
from mlcls.labels.table import LabelTable
from mlcls.recipe import Recipe

Groups = tuple[tuple[int, ...], ...]


def group_rows(table: LabelTable, alike: Groups) -> NDArray[np.int64]:
    """[N] ids: rows that share one belong together, for being one photo or for their group column's value."""
    return combine_groups(len(table.images), alike, () if table.groups is None else table.groups)


def split_images(
    recipe: Recipe, table: LabelTable, groups: NDArray[np.int64]
) -> tuple[Split, tuple[str, ...]]:
    """The split that the recipe asks for, and what there is to say about it.

    Args:
        groups: [N] rows of equal value are not parted by a split that is made here.
    """
    if not is_given(recipe, table):
        return _stratified(recipe, table, groups, parse_fractions(recipe.split)), ()
    if recipe.split.startswith("file:"):
        split = read_split(Path(recipe.split.removeprefix("file:")), table.images.tolist())
    elif recipe.split.startswith("column:"):
        split = _split_of_column(recipe, table, groups)
    else:
        split = _split_of_tables(recipe, table, groups)
    return split, _torn(split, groups)


def is_given(recipe: Recipe, table: LabelTable) -> bool:
    """Whether a file, a column or tables of their own say which subset an image is in."""
    return recipe.split.startswith(("file:", "column:")) or table.subsets is not None


def _stratified(
    recipe: Recipe, table: LabelTable, groups: NDArray[np.int64], fractions: tuple[float, float, float]
) -> Split:
    return split_table(table.labels, fractions, groups=groups, seed=recipe.seed, attributes=table.attributes)


def _split_of_tables(recipe: Recipe, table: LabelTable, groups: NDArray[np.int64]) -> Split:
    """Subsets as the tables give them; validation, where it has no table, is taken from the first."""
    assert table.subsets is not None
    rows = {name: np.flatnonzero(table.subsets == name) for name in ("train", "val", "test")}
    split = Split(rows["train"], rows["val"], rows["test"])
    if not recipe.val_labels:
        return _carve_val(recipe, table, groups, split, parse_fractions(recipe.split))
    if recipe.split != Recipe().split:
        return dataclasses.replace(
            split, notes=(f"--split {recipe.split} is not used: the tables are the subsets",)
        )
    return split


def _split_of_column(recipe: Recipe, table: LabelTable, groups: NDArray[np.int64]) -> Split:
    """Subsets as a column gives them; validation, where it has none, is taken from train."""
    assert table.subsets is not None
    column = recipe.split.removeprefix("column:")
    split = split_by_column(table.subsets.tolist(), column=column, allow_no_val=True)
    if len(split.val):
        return split
    carved = _carve_val(recipe, table, groups, split, parse_fractions(Recipe().split))
    note = f"the column '{column}' has no rows for validation: {len(carved.val)} of train were taken for it"
    return dataclasses.replace(carved, notes=(note, *carved.notes))


def _carve_val(
    recipe: Recipe,
    table: LabelTable,
    groups: NDArray[np.int64],
    split: Split,
    fractions: tuple[float, float, float],
) -> Split:
    """The split with validation taken out of train, in the proportion of these fractions."""
    train, val, _ = fractions
    total = train + val
    first = select_rows(table, split.train)
    part = _stratified(recipe, first, groups[split.train], (train / total, val / total, 0.0))
    return Split(split.train[part.train], split.train[part.val], split.test, part.notes)


def _torn(split: Split, groups: NDArray[np.int64]) -> tuple[str, ...]:
    """A warning when a split that was given, not made, tears groups apart."""
    seen = np.concatenate([np.unique(groups[rows]) for rows in (split.train, split.val, split.test)])
    torn = int(np.count_nonzero(np.unique(seen, return_counts=True)[1] > 1))
    if not torn:
        return ()
    return (
        f"{torn} group{'s' if torn > 1 else ''} of images that belong together (identical, near-identical, or of "
        "one --group-column value) in more than one subset of the given split: figures on them flatter",
    )


def select_rows(table: LabelTable, rows: NDArray[np.intp]) -> LabelTable:
    """The table with these rows alone."""
    return dataclasses.replace(
        table,
        images=table.images[rows],
        labels=table.labels[rows],
        subsets=None if table.subsets is None else table.subsets[rows],
        groups=None if table.groups is None else table.groups[rows],
    )
