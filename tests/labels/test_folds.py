"""Folds: each row in one, groups whole, labels spread, the same again for the same seed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mlcls.errors import RecipeError, TableError
from mlcls.labels.folds import fold_rows


def some_labels(rng: np.random.Generator, rows: int, attributes: int) -> NDArray[np.float32]:
    return rng.choice([0.0, 1.0, np.nan], size=(rows, attributes), p=[0.6, 0.25, 0.15]).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(12, 90), st.integers(1, 5), st.integers(2, 6))
def test_each_row_is_in_one_fold_and_the_folds_are_of_one_size(
    seed: int, rows: int, attributes: int, folds: int
) -> None:
    labels = some_labels(np.random.default_rng(seed), rows, attributes)
    labels[:, 0] = np.arange(rows) % 2  # so that each fold has a known label
    found = fold_rows(labels, folds, seed=seed).of_row
    sizes = np.bincount(found, minlength=folds)
    assert found.shape == (rows,)
    assert sizes.max() - sizes.min() <= 1
    assert np.array_equal(found, fold_rows(labels, folds, seed=seed).of_row)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_groups_are_never_torn(seed: int, folds: int) -> None:
    rng = np.random.default_rng(seed)
    labels = some_labels(rng, 60, 3)
    labels[:, 0] = rng.integers(0, 2, 60)
    groups = rng.integers(0, 25, 60) * 7 - 3
    found = fold_rows(labels, folds, groups=groups, seed=seed).of_row
    for group in np.unique(groups):
        assert len(np.unique(found[groups == group])) == 1
    assert set(found.tolist()) == set(range(folds))


def test_a_rare_label_stands_in_every_fold_that_could_have_it() -> None:
    labels = np.zeros((200, 3), dtype=np.float32)
    labels[[3, 4, 5, 6, 7], 0] = 1  # five in a row, for five folds
    labels[:60, 1] = 1
    labels[np.arange(0, 200, 2), 2] = np.nan
    found = fold_rows(labels, 5, seed=1)
    for fold in range(5):
        rows = found.of_row == fold
        assert labels[rows, 0].sum() == 1
        assert labels[rows, 1].sum() == 12
        assert np.isnan(labels[rows, 2]).sum() == 20
    assert [note for note in found.notes if "attribute 1" in note or "attribute 2" in note] == []


def test_other_seeds_give_other_folds() -> None:
    labels = some_labels(np.random.default_rng(0), 60, 2)
    one, other = fold_rows(labels, 3, seed=0).of_row, fold_rows(labels, 3, seed=1).of_row
    assert not np.array_equal(one, other)


def test_what_a_fold_lacks_is_told() -> None:
    labels = np.zeros((30, 2), dtype=np.float32)
    labels[0, 0], labels[:, 1] = 1, np.arange(30) % 2
    (note,) = fold_rows(labels, 3, attributes=("helmet", "vest")).notes
    assert note == "'helmet' has 1 image showing it outside of the test subset: none in 2 of the 3 folds"


@pytest.mark.parametrize("folds", [-1, 1])
def test_one_fold_is_refused(folds: int) -> None:
    with pytest.raises(RecipeError, match="--folds: expected 2 or more"):
        fold_rows(np.zeros((9, 1), dtype=np.float32), folds)


def test_more_folds_than_rows_or_groups_are_refused() -> None:
    labels = np.zeros((9, 1), dtype=np.float32)
    with pytest.raises(RecipeError, match="9 images outside of the test subset; expected at most 9 folds"):
        fold_rows(labels, 10)
    with pytest.raises(
        RecipeError, match=r"which belong to 3 groups that may not be torn; .* at most 3 folds"
    ):
        fold_rows(labels, 4, groups=np.arange(9) // 3)


def test_a_fold_of_unknown_labels_alone_is_refused() -> None:
    labels = np.full((9, 1), np.nan, dtype=np.float32)
    labels[0, 0] = 1
    with pytest.raises(TableError, match="no label is known in fold"):
        fold_rows(labels, 3)
