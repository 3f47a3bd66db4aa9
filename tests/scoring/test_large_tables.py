"""Large matrices: figures that go through them in parts are those of the whole, and memory beside them is small."""

import tracemalloc

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from mlcls.errors import NumericalError
from mlcls.scoring import ranking
from mlcls.scoring.assessment import assess
from mlcls.scoring.calibration import fit_calibration, out_of_fold_figures
from mlcls.scoring.calibration_error import calibration_figures
from mlcls.scoring.cells import known_cells
from mlcls.scoring.crossfit import cross_fit
from mlcls.scoring.metrics import evaluate
from mlcls.scoring.mistakes import confident_mistakes
from mlcls.scoring.thresholds import tune, tune_report

ROWS, ATTRIBUTES = 24_000, 40


@pytest.fixture(scope="module")
def large():
    """Labels, a quarter of them unknown, and scores, 4 MB each."""
    random = np.random.default_rng(0)
    rates = np.geomspace(0.01, 0.5, ATTRIBUTES).astype(np.float32)
    labels = (random.random((ROWS, ATTRIBUTES), np.float32) < rates).astype(np.float32)
    logits = random.standard_normal(labels.shape, np.float32) + 2 * labels + np.log(rates)
    labels[random.random(labels.shape, np.float32) < 0.25] = np.nan
    return labels, 1 / (1 + np.exp(-logits))


@pytest.fixture
def small_blocks(monkeypatch):
    """What is small beside a large matrix, made small beside this one."""
    monkeypatch.setattr("mlcls.scoring.cells.BLOCK", 1 << 14)
    monkeypatch.setattr("mlcls.scoring.estimators.WEIGHTS", 1 << 16)
    monkeypatch.setattr("mlcls.scoring.optima.UNITS", 1 << 11)
    monkeypatch.setattr("mlcls.scoring.ranking.PART", 1 << 14)
    monkeypatch.setattr("mlcls.scoring.ranking.BLOCK", 1 << 12)


def beside(call, labels, scores):
    """Bytes that a call holds at its most, as multiples of the matrix it is given."""
    call(labels[:300], scores[:300])  # what is loaded or made once is not counted
    tracemalloc.start()
    try:
        call(labels, scores)
        return tracemalloc.get_traced_memory()[1] / labels.nbytes
    finally:
        tracemalloc.stop()


STEPS = {
    "assess": lambda labels, scores: assess(labels, scores, 0.5, resamples=0),
    "assess by group": lambda labels, scores: assess(
        labels, scores, 0.5, groups=np.arange(len(labels)) // 3, resamples=0
    ),
    "tune exact": lambda labels, scores: tune(labels, scores, estimator="exact"),
    "fit_calibration": fit_calibration,
    "calibration_figures": calibration_figures,
    "confident_mistakes": lambda labels, scores: confident_mistakes(labels, scores, 0.5),
}


@pytest.mark.parametrize("step", STEPS)
def test_no_more_than_one_matrix_stands_beside_labels_and_scores(step, large, small_blocks):
    assert beside(STEPS[step], *large) < 1


def test_bootstrapped_thresholds_hold_no_weight_for_each_row_and_resample(large, small_blocks):
    # a float32 for each row and resample were 800 bytes a row, 12 times these labels
    assert beside(tune, *(part[:, 24:].copy() for part in large)) < 3


def test_a_pool_in_parts_is_the_whole_pool(large, monkeypatch):
    labels, scores = large
    scores = np.round(scores * 50) / np.float32(50)  # ties across what would be the parts' borders
    present, known = labels == 1, ~np.isnan(labels)
    whole = evaluate(labels, scores, 0.5)["micro"]
    monkeypatch.setattr(ranking, "PART", 1 << 14)
    parted = list(ranking._parts(labels, scores, int(known.sum())))
    assert len(parted) == ranking.PARTS
    sizes = [len(positives) + len(negatives) for positives, negatives in parted]
    assert sum(sizes) == known.sum()
    assert max(sizes) < 0.4 * known.sum()
    micro = evaluate(labels, scores, 0.5)["micro"]
    assert micro == pytest.approx(whole, rel=1e-12)
    assert micro["average_precision"] == pytest.approx(average_precision_score(present[known], scores[known]))
    assert micro["auroc"] == pytest.approx(roc_auc_score(present[known], scores[known]))


def test_thresholds_do_not_depend_on_how_many_resamples_are_weighed_at_a_time(large, monkeypatch):
    labels, scores = (part[:1500, 34:] for part in large)
    groups = np.random.default_rng(1).integers(0, 450, 1500)
    found = [tune_report(labels, scores, estimator=name, groups=groups) for name in ("robust", "exact")]
    worth = cross_fit(labels, scores)
    monkeypatch.setattr("mlcls.scoring.estimators.WEIGHTS", 1500 * 17)  # 17 of 200, the last of them 13
    monkeypatch.setattr("mlcls.scoring.optima.UNITS", 100)
    again = [tune_report(labels, scores, estimator=name, groups=groups) for name in ("robust", "exact")]
    assert again == found
    assert cross_fit(labels, scores).values == worth.values


def test_figures_out_of_fold_hold_no_third_matrix(large, small_blocks, monkeypatch):
    monkeypatch.setattr("mlcls.scoring.calibration.BLOCK", 1)
    assert beside(out_of_fold_figures, *(part[:, 20:].copy() for part in large)) < 1.5


def test_a_score_that_is_nan_is_found_in_whatever_block_it_lies(large, small_blocks):
    labels, scores = large
    scores = scores.copy()
    scores[20_000:20_002, 7] = np.nan
    with pytest.raises(NumericalError, match=r"2 of 960000 scores are NaN, the first in row 20000 "):
        evaluate(labels, scores, 0.5)
    labels = labels.copy()
    labels[21_000, 1] = 2
    with pytest.raises(ValueError, match="neither 0"):
        known_cells(labels, np.zeros_like(scores))
