"""Cross-fitting: nothing chooses its own decision, folds are even, and the figure is near the truth."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.errors import RecipeError
from mlcls.scoring.cells import is_present
from mlcls.scoring.crossfit import cross_fit, divide, divide_images
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.thresholds import tune, tune_report

nan = np.nan


def make(size, seed, attributes=6, gap=1.5):
    random = np.random.default_rng(seed)
    labels = (random.random((size, attributes)) < 0.3).astype(np.float32)
    scores = 1 / (1 + np.exp(-random.normal(size=labels.shape) - gap * labels))
    return labels, scores.astype(np.float32)


def test_two_folds_by_hand():
    # trained on either half: all positives lie above all negatives, so the other half is decided rightly ...
    labels = np.array([[1, 1, 1, 0, 0, 0] * 2]).T
    scores = np.where(labels == 1, 0.9, 0.1)
    found = cross_fit(labels, scores, "f1", "exact", folds=2)
    assert (found.values, found.f1, found.folds.tolist()) == ((1.0,), (1.0,), [2])
    assert found.counts.tolist() == [[6, 0, 0, 6]]
    # ... and every cell is decided once, by a threshold that did not see it
    labels, scores = make(31, 0, attributes=1)
    held = divide_images(labels == 1, labels == 0, np.arange(31), 3, 0)[0][:, None]
    tp = fp = 0
    for fold in range(3):
        seen = np.where(held == fold, nan, labels)
        yes = is_present(scores, tune(seen, scores, estimator="exact"))
        tp += ((labels == 1) & yes & (held == fold)).sum()
        fp += ((labels == 0) & yes & (held == fold)).sum()
    found = cross_fit(labels, scores, "f1", "exact", folds=3)
    assert found.counts[0].tolist() == [(labels == 0).sum() - fp, fp, (labels == 1).sum() - tp, tp]
    assert found.f1[0] == pytest.approx(2 * tp / ((labels == 1).sum() + tp + fp))


@pytest.mark.parametrize("estimator", ["exact", "robust"])
def test_the_cross_fitted_figure_is_near_the_worth_and_the_naive_one_flatters(estimator):
    naive, crossed, worth = [], [], []
    fresh = make(20_000, 1000)
    for seed in range(12):
        labels, scores = make(35, seed)
        report = tune_report(labels, scores, estimator=estimator)
        naive += [one.value for one in report]
        crossed += [one.cross_fitted for one in report]
        worth.append(evaluate(*fresh, [one.threshold for one in report])["macro"]["f1"])
    assert np.mean(naive) > np.mean(worth) + 0.02
    assert abs(np.mean(crossed) - np.mean(worth)) < 0.02


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 6), grouped=st.booleans())
def test_folds_are_even_whole_and_cover_the_known_cells(seed, folds, grouped):
    random = np.random.default_rng(seed)
    size = int(random.integers(1, 60))
    cells = random.choice([0.0, 1.0, nan], size=(size, 3), p=[0.6, 0.2, 0.2])
    units = random.integers(0, 12, size) if grouped else np.arange(size)
    present, absent = cells == 1, cells == 0
    dealer = np.random.default_rng(seed)
    dealt = [divide(present[:, c], absent[:, c], units, folds, dealer) for c in range(3)]
    held, made = np.stack([one[0] for one in dealt], axis=1), [one[1] for one in dealt]
    for column in range(3):
        with_positive, with_negative = (set(units[side[:, column]]) for side in (present, absent))
        possible = min(folds, len(with_positive), len(with_negative))
        assert made[column] == (possible if possible >= 2 else 0)
        known = present[:, column] | absent[:, column]
        assert (held[~known, column] == -1).all()
        if not made[column]:
            assert (held[:, column] == -1).all()
            continue
        assert set(held[present[:, column], column]) == set(range(made[column]))
        for unit in set(units[known]):
            assert len(set(held[known & (units == unit), column])) == 1
        if not grouped:
            for side in (present, absent):
                sizes = np.bincount(held[side[:, column], column], minlength=made[column])
                assert np.ptp(sizes) <= 1


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), folds=st.integers(2, 6), grouped=st.booleans())
def test_images_are_divided_once_for_all_attributes(seed, folds, grouped):
    random = np.random.default_rng(seed)
    size, attributes = int(random.integers(1, 60)), int(random.integers(1, 5))
    cells = random.choice([0.0, 1.0, nan], size=(size, attributes), p=[0.6, 0.2, 0.2])
    units = random.integers(0, 12, size) if grouped else np.arange(size)
    present, absent = cells == 1, cells == 0
    fold_of, made = divide_images(present, absent, units, folds, seed)
    of_unit = dict(zip(units.tolist(), fold_of.tolist(), strict=True))
    assert [of_unit[unit] for unit in units.tolist()] == fold_of.tolist()  # whole units
    known = present | absent
    assert (fold_of[known.any(axis=1)] >= 0).all()
    assert fold_of.max(initial=-1) < folds
    for column in range(attributes):
        reached = min(len(set(fold_of[side[:, column]])) for side in (present, absent))
        assert made[column] == (reached if reached >= 2 else 0)
    rarest = min([*present.T, *absent.T], key=np.count_nonzero)
    sides = [rarest] if attributes > 1 else [present[:, 0], absent[:, 0]]
    for side in sides if not grouped else []:
        assert np.ptp(np.bincount(fold_of[side], minlength=folds)) <= 1  # the others: about evenly


def test_every_attribute_is_divided_about_evenly():
    random = np.random.default_rng(0)
    labels = random.random((400, 12)) < np.linspace(0.02, 0.6, 12)
    fold_of, made = divide_images(labels, ~labels, np.arange(400), 5, 0)
    assert (made == 5).all()
    for column in labels.T:
        shares = np.bincount(fold_of[column], minlength=5) / column.sum()
        assert shares.min() > 0.08
        assert shares.max() < 0.32


def test_other_attributes_do_not_tell_of_the_images_left_out():
    # copies of an attribute add nothing to it, so they must not change what its thresholds are worth
    for seed in range(4):
        labels, scores = make(40, seed, attributes=1)
        alone, copied = cross_fit(labels, scores), cross_fit(labels.repeat(20, 1), scores.repeat(20, 1))
        assert copied.values == alone.values * 20


def test_two_positives_make_two_folds_and_one_makes_none():
    labels, scores = make(30, 1, attributes=3)
    labels[:, 0] = np.arange(30) < 2
    labels[:, 1] = np.arange(30) < 1
    labels[:, 2] = np.arange(30) < 9
    found = cross_fit(labels, scores)
    assert found.folds.tolist() == [2, 0, 5]
    assert found.values[0] is not None
    assert (found.values[1], found.f1[1], found.counts[1].tolist()) == (None, None, [0] * 4)


def test_the_figure_is_the_objectives():
    labels, scores = make(200, 2)
    cost = cross_fit(labels, scores, "cost:1,3")
    for value, (_, fp, fn, _) in zip(cost.values, cost.counts.tolist(), strict=True):
        assert value == fp + 3 * fn
    recall = cross_fit(labels, scores, "precision:0.4")
    for value, (_, _, fn, tp) in zip(recall.values, recall.counts.tolist(), strict=True):
        assert value == pytest.approx(tp / (tp + fn))
    assert cross_fit(labels, scores, "fixed:0.5").values == (None,) * 6


def test_groups_never_part():
    # every image twice; parted, the copy would tell the threshold what it has to find
    random = np.random.default_rng(3)
    labels = np.repeat((random.random((12, 20)) < 0.4).astype(np.float32), 2, 0)
    scores = np.repeat(random.random((12, 20)).astype(np.float32), 2, 0)
    groups = np.repeat(np.arange(12), 2)
    parted = [one for one in cross_fit(labels, scores, "youden", "exact").values if one is not None]
    whole = cross_fit(labels, scores, "youden", "exact", groups=groups).values
    assert np.mean([one for one in whole if one is not None]) < np.mean(parted) - 0.1


def test_the_same_seed_gives_the_same_figures():
    labels, scores = make(50, 4)
    assert cross_fit(labels, scores, seed=1).values == cross_fit(labels, scores, seed=1).values
    assert cross_fit(labels, scores, seed=1).values != cross_fit(labels, scores, seed=2).values


def test_what_cannot_be_done_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        cross_fit([[1.0]], [[0.5]], folds=1)
    with pytest.raises(RecipeError, match="--estimator"):
        cross_fit([[1.0]], [[0.5]], "f1", "exakt")
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        cross_fit([[1.0]], [[1.5]])
    assert cross_fit(np.zeros((0, 2)), np.zeros((0, 2))).values == (None, None)
    assert cross_fit(np.zeros((3, 0)), np.zeros((3, 0))).values == ()
