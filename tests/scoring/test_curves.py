"""Curves against scikit-learn, unknowns removed for the reference; thinned ones are part of the exact ones."""

import numpy as np
import pytest
from sklearn import metrics as reference

from mlcls.errors import NumericalError
from mlcls.scoring.curves import (
    MOST_POINTS,
    precision_recall_curve,
    reliability,
    roc_curve,
    threshold_curve,
)
from mlcls.scoring.metrics import evaluate

nan = np.nan
CURVES = [precision_recall_curve, roc_curve, threshold_curve]


def column(seed, size=60):
    random = np.random.default_rng(seed)
    labels = (random.random(size) < random.uniform(0.1, 0.9)).astype(np.float32)
    labels[:2] = 0, 1
    scores = random.random(size).astype(np.float32) * 0.7 + labels * 0.3
    if seed % 2:
        scores = np.round(scores, 1)  # ties
    labels[2:][random.random(size - 2) < 0.3] = nan
    known = ~np.isnan(labels)
    return labels, scores, labels[known], scores[known]


@pytest.mark.parametrize("seed", range(30))
def test_precision_and_recall_are_those_of_scikit_learn(seed):
    labels, scores, known_labels, known_scores = column(seed)
    found = precision_recall_curve(labels, scores, most=None)
    precision, recall, thresholds = reference.precision_recall_curve(known_labels, known_scores)
    np.testing.assert_allclose(found.precision, precision, atol=1e-12)
    np.testing.assert_allclose(found.recall, recall, atol=1e-12)
    np.testing.assert_allclose(found.thresholds, [*thresholds, np.inf], atol=1e-7)


@pytest.mark.parametrize("seed", range(30))
def test_the_roc_is_that_of_scikit_learn(seed):
    labels, scores, known_labels, known_scores = column(seed)
    found = roc_curve(labels, scores, most=None)
    false, true, thresholds = reference.roc_curve(known_labels, known_scores, drop_intermediate=False)
    np.testing.assert_allclose(found.false_positive_rate, false, atol=1e-12)
    np.testing.assert_allclose(found.true_positive_rate, true, atol=1e-12)
    np.testing.assert_allclose(found.thresholds, thresholds, atol=1e-7)


@pytest.mark.parametrize("seed", range(10))
def test_figures_by_threshold_are_those_of_the_evaluation(seed):
    labels, scores, _, _ = column(seed)
    curve = threshold_curve(labels, scores)
    for index, threshold in enumerate(curve.thresholds):
        entry = evaluate(labels[:, None], scores[:, None], [threshold])["attributes"][0]
        assert curve.precision[index] == pytest.approx(entry["precision"], abs=1e-12)
        assert curve.recall[index] == pytest.approx(entry["recall"], abs=1e-12)
        assert curve.f1[index] == pytest.approx(entry["f1"], abs=1e-12)


def points(curve):
    return list(zip(*(getattr(curve, name) for name in curve.__slots__), strict=True))


@pytest.mark.parametrize("draw", CURVES)
@pytest.mark.parametrize("seed", range(4))
def test_a_thinned_curve_is_part_of_the_exact_one_with_its_ends(draw, seed):
    labels, scores, _, _ = column(seed, 5000)
    exact, thinned = points(draw(labels, scores, most=None)), points(draw(labels, scores))
    assert set(thinned) <= set(exact)
    assert (thinned[0], thinned[-1]) == (exact[0], exact[-1])
    assert len(thinned) <= MOST_POINTS


@pytest.mark.parametrize("seed", [0, 2])
def test_a_thinned_curve_keeps_its_shape(seed):
    labels, scores, _, _ = column(seed, 20_000)
    exact, thinned = roc_curve(labels, scores, most=None), roc_curve(labels, scores)
    assert len(thinned.thresholds) > 0.8 * MOST_POINTS
    along, kept = (one.false_positive_rate + one.true_positive_rate for one in (exact, thinned))
    drawn = np.interp(along, kept, thinned.true_positive_rate)
    assert np.abs(drawn - exact.true_positive_rate).max() < 0.01
    figures = threshold_curve(labels, scores)
    assert figures.f1.max() == pytest.approx(threshold_curve(labels, scores, most=None).f1.max(), abs=0.005)


def test_reliability_has_bins_of_equal_mass():
    random = np.random.default_rng(0)
    scores = random.random(1000).astype(np.float32)
    labels = (random.random(1000) < scores).astype(np.float32)
    labels[random.random(1000) < 0.2] = nan
    known = ~np.isnan(labels)
    found = reliability(labels, scores, bins=5)
    assert found.counts.sum() == known.sum()
    assert np.ptp(found.counts) <= 1
    order = np.argsort(scores[known])
    for chunk, predicted, observed in zip(
        np.split(order, np.cumsum(found.counts)[:-1]), found.predicted, found.observed, strict=True
    ):
        assert predicted == pytest.approx(scores[known][chunk].mean(), abs=1e-6)
        assert observed == pytest.approx(labels[known][chunk].mean(), abs=1e-6)
    assert np.abs(found.predicted - found.observed).max() < 0.1


def test_reliability_never_parts_equal_scores():
    found = reliability([0, 0, 1, 1, 1, nan], [0.2, 0.2, 0.2, 0.9, 0.9, 0.5], bins=4)
    assert found.counts.tolist() == [3, 2]
    assert found.predicted.tolist() == pytest.approx([0.2, 0.9])
    assert found.observed.tolist() == pytest.approx([1 / 3, 1])
    one = reliability([1, nan], [0.3, 0.9])  # one class has no curve, but it has a share
    assert (one.counts.tolist(), one.observed.tolist()) == ([1], [1.0])


@pytest.mark.parametrize("labels", [[1, 1, nan], [0, 0, 0], [nan, nan, nan]])
def test_one_class_has_no_curve(labels):
    for draw in CURVES:
        assert draw(labels, [0.1, 0.5, 0.9]) is None


def test_nothing_known_has_no_reliability():
    assert reliability([nan, nan], [0.1, 0.9]) is None
    assert reliability([], []) is None


def test_what_is_no_column_is_refused():
    for draw in [*CURVES, reliability]:
        with pytest.raises(ValueError, match=r"\[images\]"):
            draw([[1.0], [0.0]], [[0.5], [0.5]])
        with pytest.raises(ValueError, match="neither 0"):
            draw([1.0, 2.0], [0.5, 0.5])
        with pytest.raises(NumericalError):
            draw([1.0, 0.0], [nan, 0.5])
    with pytest.raises(ValueError, match="at least 1"):
        reliability([1.0], [0.5], bins=0)
