"""Calibration: known shifts undone, a fit that helps and never reorders, figures against two references."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import binary_calibration_error

from mlcls.errors import NumericalError
from mlcls.scoring.calibration import (
    RIDGE_INTERCEPT,
    RIDGE_SLOPE,
    Calibration,
    fit_calibration,
    identity,
    known_shift,
    out_of_fold,
    out_of_fold_figures,
)
from mlcls.scoring.calibration_error import calibration_figures

nan = np.nan


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def made(random, images, attributes=1, *, slope=1.0, shift=0.0, unknown=0.0):
    """Labels from true logits around -2, and float32 scores of logits (true / slope + shift)."""
    true = random.standard_normal((images, attributes)) * 2 - 2
    labels = (random.random(true.shape) < sigmoid(true)).astype(np.float32)
    labels[random.random(true.shape) < unknown] = nan
    return labels, sigmoid(true / slope + shift).astype(np.float32)


def log_loss(labels, scores):
    p = np.clip(scores.astype(np.float64), 1e-30, 1 - 1e-9)
    return np.nanmean(-(labels * np.log(p) + (1 - labels) * np.log(1 - p)))


@pytest.mark.parametrize("weight", [0.2, 1.0, 10.0])
def test_the_shift_is_that_of_a_network_trained_with_pos_weight(weight):
    """A single logit trained on three positives in ten learns the weighted rate; the shift gives the rate back."""
    targets = torch.tensor([1.0] * 3 + [0.0] * 7)
    logit = torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.LBFGS([logit], max_iter=50)

    def closure():
        optimizer.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            logit.expand(10), targets, pos_weight=torch.tensor(weight)
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    shift = known_shift([weight])
    assert sigmoid(logit.item() + shift[0]) == pytest.approx(0.3, abs=1e-4)


def test_the_shift_of_unknowns_trained_as_absent_gives_the_rate_among_the_known():
    shift = known_shift(negative=[6, 0], unknown=[10, 10])
    assert sigmoid(np.log(4 / 16) + shift[0]) == pytest.approx(4 / 10)
    assert shift[1] == 0
    weighted = known_shift([4.0, 1.0], negative=[6, 0], unknown=[10, 10])
    np.testing.assert_allclose(weighted, shift - np.log([4, 1]))


def test_no_shift_is_known_without_weights_or_of_other_losses():
    assert known_shift() is None
    assert known_shift([3.0], loss="focal") is None
    assert known_shift([3.0], loss="bce") is not None


def test_the_fit_is_the_minimum_of_the_stated_cost():
    random = np.random.default_rng(0)
    labels, scores = made(random, 120, 6, slope=0.6, shift=1.0, unknown=0.3)
    shift = np.linspace(-1.5, 0.5, 6)
    found = fit_calibration(labels, scores, shift)
    for a in range(6):
        known = ~np.isnan(labels[:, a])
        y, p = labels[known, a].astype(float), scores[known, a].astype(float)
        z = np.log(p / (1 - p)) + shift[a]
        weight = sigmoid(z) * (1 - sigmoid(z))
        pivot = (weight * z).sum() / weight.sum()

        def cost(line, z=z, y=y, pivot=pivot):
            f = np.exp(line[0]) * (z - pivot) + pivot + line[1]
            ridge = RIDGE_SLOPE * line[0] ** 2 + RIDGE_INTERCEPT * line[1] ** 2
            return (np.logaddexp(0, f) - y * f).sum() + ridge / 2

        best = minimize(cost, [0, 0], tol=1e-12).x
        slope = np.exp(best[0])
        assert found.slope[a] == pytest.approx(slope, rel=1e-4)
        assert found.intercept[a] == pytest.approx(
            slope * (shift[a] - pivot) + pivot + best[1], rel=1e-4, abs=1e-4
        )


@pytest.mark.parametrize("slope", [0.5, 1.0, 2.0])
def test_many_positives_undo_shift_and_slope(slope):
    labels, scores = made(np.random.default_rng(1), 40_000, 1, slope=slope, shift=np.log(5.0))
    found = fit_calibration(labels, scores, known_shift([5.0]))
    assert found.slope[0] == pytest.approx(slope, rel=0.06)
    assert found.intercept[0] == pytest.approx(-slope * np.log(5.0), abs=0.1)
    before, after = (
        calibration_figures(labels, scores),
        out_of_fold_figures(labels, scores, known_shift([5.0])),
    )
    assert after["ece"] < 0.01 < 0.05 < before["ece"]
    assert after["brier"] < before["brier"]


def test_attributes_that_cannot_be_judged_keep_the_shift_alone():
    labels = np.array([[0, 1, 1, nan], [0, 0, 1, nan], [0, 0, nan, nan]] * 9, dtype=np.float32)
    labels[:, 1] = 0
    labels[0, 1] = 1
    scores = np.random.default_rng(0).random((27, 4)).astype(np.float32)
    shift = np.array([-1.0, -2.0, 0.5, 0.0])
    found = fit_calibration(labels, scores, shift)
    np.testing.assert_array_equal(found.slope, 1)
    np.testing.assert_array_equal(found.intercept, shift)
    np.testing.assert_array_equal(out_of_fold(labels, scores, shift), found.apply(scores))


def test_three_positives_do_no_harm_on_average():
    """100 attributes at once, each with about three positives, half of them with too small a slope."""
    random = np.random.default_rng(0)
    slopes = np.tile([1.0, 2.0], 50)
    labels, scores = made(random, 15, 100, slope=slopes, shift=1.0)
    fresh, fresh_scores = made(random, 3000, 100, slope=slopes, shift=1.0)
    found = fit_calibration(labels, scores, np.full(100, -1.0))
    alone = Calibration(np.ones(100), np.full(100, -1.0))
    assert log_loss(fresh, found.apply(fresh_scores)) < log_loss(fresh, alone.apply(fresh_scores))
    assert log_loss(fresh, alone.apply(fresh_scores)) < log_loss(fresh, fresh_scores)


def test_unknown_cells_take_no_part():
    labels, scores = made(np.random.default_rng(2), 200, 1, slope=0.5)
    more = np.concatenate([labels, np.full((50, 1), nan, dtype=np.float32)])
    other = np.concatenate([scores, np.full((50, 1), 0.99, dtype=np.float32)])
    found, expected = fit_calibration(more, other), fit_calibration(labels, scores)
    assert found.slope == pytest.approx(expected.slope)
    assert found.intercept == pytest.approx(expected.intercept)


def test_columns_do_not_depend_on_each_other(monkeypatch):
    labels, scores = made(np.random.default_rng(3), 150, 7, slope=0.7, unknown=0.2)
    together = fit_calibration(labels, scores)
    monkeypatch.setattr("mlcls.scoring.calibration.BLOCK", 300)  # two columns at a time
    np.testing.assert_allclose(fit_calibration(labels, scores).slope, together.slope, rtol=1e-5)
    alone = [fit_calibration(labels[:, [a]], scores[:, [a]]).intercept[0] for a in range(7)]
    np.testing.assert_allclose(together.intercept, alone, rtol=1e-4, atol=1e-5)


def test_a_held_out_cell_has_no_part_in_its_own_calibration():
    labels, scores = made(np.random.default_rng(4), 60, 1, slope=2.0)
    before = out_of_fold(labels, scores)
    row = int(np.flatnonzero(labels[:, 0] == 0)[0])
    changed = scores.copy()
    changed[row] = 0.999  # the worst of all, and the fit on all would yield to it
    after = out_of_fold(labels, changed)
    same_fold = before[:, 0] == after[:, 0]
    same_fold[row] = True
    assert 5 < same_fold.sum() < 20
    assert fit_calibration(labels, changed).slope != fit_calibration(labels, scores).slope


def test_out_of_fold_figures_are_those_of_the_scores_block_by_block(monkeypatch):
    labels, scores = made(np.random.default_rng(6), 200, 5, slope=2.0)
    groups, shift = np.arange(200) // 3, np.linspace(-1, 1, 5)
    options = {"groups": groups, "seed": 3}
    together = out_of_fold(labels, scores, shift, **options)
    monkeypatch.setattr("mlcls.scoring.calibration.BLOCK", 400)  # two columns at a time
    np.testing.assert_allclose(out_of_fold(labels, scores, shift, **options), together, rtol=1e-3)
    names = list("abcde")
    found = out_of_fold_figures(labels, scores, shift, names, **options)
    expected = calibration_figures(labels, together, names)
    assert [row.pop("name") for row in found["attributes"]] == names
    for row, other in zip(found["attributes"], expected["attributes"], strict=True):
        assert row["brier"] == pytest.approx(other["brier"], rel=1e-4)
        assert row["ece"] == pytest.approx(other["ece"], rel=1e-2)
    assert found["brier"] == pytest.approx(expected["brier"], rel=1e-4)


def test_a_group_is_held_out_whole():
    labels, scores = made(np.random.default_rng(5), 60, 1, slope=2.0)
    groups = np.arange(60) // 6
    before = out_of_fold(labels, scores, groups=groups)
    changed = scores.copy()
    changed[7] = 0.5 * changed[7]
    after = out_of_fold(labels, changed, groups=groups)
    np.testing.assert_array_equal(before[[6, 8, 9, 10, 11]], after[[6, 8, 9, 10, 11]])
    with pytest.raises(ValueError, match="folds"):
        out_of_fold(labels, scores, folds=1)


lines = st.tuples(st.floats(0.02, 50), st.floats(-20, 20))
float32s = hnp.arrays(np.float32, st.integers(1, 40), elements=st.floats(0, 1, width=32))


@given(lines, float32s)
@settings(deadline=None, max_examples=300)
def test_never_reorders_never_leaves_the_unit_interval(line, scores):
    calibration = Calibration(np.array([line[0]]), np.array([line[1]]))
    scores = np.sort(np.concatenate([scores, np.nextafter(scores, np.float32(1)), np.float32([0, 1])]))
    found = calibration.apply(scores[:, None])[:, 0]
    assert found.dtype == np.float32
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found) >= 0).all()
    assert (np.diff(found)[np.diff(scores) == 0] == 0).all()


@given(lines, float32s, st.floats(0.001, 0.999))
@settings(deadline=None, max_examples=300)
def test_an_inverted_threshold_decides_alike(line, scores, threshold):
    calibration = Calibration(np.array([line[0]]), np.array([line[1]]))
    found = calibration.apply(scores[:, None])[:, 0].astype(np.float64)
    clear = np.abs(found - threshold) > 1e-6 * threshold
    raw = calibration.invert([threshold])[0]
    np.testing.assert_array_equal((scores.astype(np.float64) >= raw)[clear], (found >= threshold)[clear])


def test_thresholds_at_the_ends_keep_their_meaning():
    calibration = Calibration(np.array([0.5, 2.0]), np.array([-3.0, 4.0]))
    never = np.nextafter(np.float32(1), np.float32(2))
    np.testing.assert_array_equal(calibration.invert([never, never]), [never, never])
    np.testing.assert_array_equal(calibration.invert([0.0, 0.0]), [0, 0])
    edges = np.float32([[0, 0], [1, 1]])
    found = calibration.apply(edges)
    assert np.isfinite(found).all()
    assert (found[1] > found[0]).all()


def test_identity_changes_nothing():
    scores = np.random.default_rng(0).random((1000, 3)).astype(np.float32)
    np.testing.assert_allclose(identity(3).apply(scores), scores, rtol=1e-6)
    np.testing.assert_allclose(identity(3).apply([[0.0, 1.0, 0.5]]), [[0, 1, 0.5]], atol=1e-37)


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [([0.0], [0.0]), ([-1.0], [0.0]), ([nan], [0.0]), ([1.0], [np.inf]), ([1, 1], [0])],
)
def test_a_line_that_falls_or_is_not_finite_is_refused(slope, intercept):
    with pytest.raises(ValueError, match="slope"):
        Calibration(np.array(slope), np.array(intercept))


def test_shapes_and_scores_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="shift must be"):
        fit_calibration(np.ones((3, 2)), np.ones((3, 2)), [0.0, 0.0, 0.0])
    with pytest.raises(NumericalError):
        fit_calibration(np.ones((1, 1)), np.array([[nan]]))


@pytest.mark.parametrize("kind", ["separable", "reversed", "constant", "extreme"])
def test_odd_scores_have_a_finite_fit(kind):
    labels = (np.arange(40) < 10).astype(np.float32)[:, None]
    scores = {
        "separable": np.where(labels == 1, 0.99, 0.01),
        "reversed": np.where(labels == 1, 0.01, 0.99),
        "constant": np.full((40, 1), 0.25),
        "extreme": np.where(np.arange(40)[:, None] % 2, 0.0, 1.0),
    }[kind]
    found = fit_calibration(labels, scores)
    after = found.apply(scores)
    assert log_loss(labels, after) <= log_loss(labels, scores.astype(np.float32)) + 1e-6
    if kind == "reversed":
        assert 0 < found.slope[0] < 0.5
    if kind == "constant":
        assert after[0, 0] == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("seed", range(40))
def test_brier_score_equals_scikit_learns(random_case, seed):
    labels, scores, _ = random_case(seed)
    found = calibration_figures(labels, scores)
    expected = []
    for a, row in enumerate(found["attributes"]):
        known = ~np.isnan(labels[:, a])
        if known.any():
            expected.append(brier_score_loss(labels[known, a], scores[known, a], labels=[0, 1]))
            assert row["brier"] == pytest.approx(expected[-1], abs=1e-6)
            assert 0 <= row["ece"] <= 1
        else:
            assert row["brier"] is None
            assert row["ece"] is None
    assert found["brier"] == (pytest.approx(np.mean(expected), abs=1e-6) if expected else None)


def test_calibration_error_equals_torchmetrics_where_both_bin_alike():
    """Scores spread evenly: bins of equal mass are then bins of equal width."""
    random = np.random.default_rng(0)
    scores = ((random.permutation(1000) + 0.5) / 1000).astype(np.float32)
    labels = (random.random(1000) < scores**2).astype(np.float32)
    expected = binary_calibration_error(
        torch.tensor(scores), torch.tensor(labels).int(), n_bins=10, norm="l1"
    )
    found = calibration_figures(labels[:, None], scores[:, None])
    assert found["ece"] == pytest.approx(expected.item(), abs=1e-6)


def test_calibration_error_does_not_depend_on_the_order_of_images_with_equal_scores():
    random = np.random.default_rng(1)
    scores = np.round(random.random((75, 1)), 1).astype(np.float32)
    labels = (random.random((75, 1)) < 0.4).astype(np.float32)
    order = random.permutation(75)
    found = calibration_figures(labels, scores, ["hat"])
    again = calibration_figures(labels[order], scores[order], ["hat"])
    assert again["ece"] == pytest.approx(found["ece"])
    assert found["attributes"][0]["name"] == "hat"
    constant = calibration_figures(labels, np.full((75, 1), 0.4, dtype=np.float32))
    assert constant["ece"] == pytest.approx(abs(labels.mean() - 0.4), abs=1e-6)


def test_predicting_needs_numpy_alone():
    code = (
        "import sys; from mlcls.scoring.calibration import Calibration, identity; identity(2).apply([[0.1, 0.9]]);"
        "print({name.split('.')[0] for name in sys.modules} & {'scipy', 'sklearn', 'pandas', 'torch'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "set()"
