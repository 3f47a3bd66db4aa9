"""A model against the mean of others' figures: the point is exact, the interval is of the same resamples."""

import numpy as np
import pytest
from numpy.typing import NDArray

from mlcls.scoring.differences import difference_to_mean, paired_differences
from mlcls.scoring.metrics import FIGURES, evaluate

Floats = NDArray[np.float32]


def data(rows: int = 160, attributes: int = 3, models: int = 4) -> tuple[Floats, list[Floats]]:
    """Labels with unknowns, and the scores of models that each see them through noise of their own."""
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, attributes)) < 0.4).astype(np.float32)
    scores = [1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 2, truth.shape)))) for _ in range(models)]
    truth[rng.random(truth.shape) < 0.1] = np.nan
    return truth, [one.astype(np.float32) for one in scores]


def test_the_mean_of_one_other_is_that_other() -> None:
    labels, (one, other, *_) = data()
    found = difference_to_mean(labels, (one, 0.5), [(other, 0.4)], resamples=200, seed=3)
    (expected,) = paired_differences(labels, [(other, 0.4), (one, 0.5)], resamples=200, seed=3)["models"]
    assert {key: found[key] for key in expected} == expected
    assert (found["level"], found["resamples"], found["unit"]) == (0.95, 200, "images")


def test_the_difference_is_that_of_the_figures() -> None:
    labels, scores = data()
    limits = np.array([0.3, 0.5, 0.7])
    found = difference_to_mean(labels, (scores[0], limits), [(one, 0.5) for one in scores[1:]], resamples=50)
    own = evaluate(labels, scores[0], limits)
    others = [evaluate(labels, one, 0.5) for one in scores[1:]]
    for figure in FIGURES:
        expected = own["macro"][figure] - np.mean([one["macro"][figure] for one in others])
        assert found["macro"][figure]["difference"] == pytest.approx(expected)
        low, high = found["macro"][figure]["interval"]
        assert low <= expected <= high


def test_the_mean_of_scores_is_better_than_the_mean_of_figures() -> None:
    labels, scores = data(rows=600)
    both = np.mean(scores, axis=0)
    found = difference_to_mean(labels, (both, 0.5), [(one, 0.5) for one in scores], resamples=200)
    assert found["macro"]["average_precision"]["interval"][0] > 0


def test_a_model_of_the_same_figures_has_no_difference() -> None:
    labels, scores = data()
    found = difference_to_mean(labels, (scores[0], 0.5), [(scores[0], 0.5)] * 3, resamples=50)
    one = found["macro"]["average_precision"]
    assert abs(one["difference"]) < 1e-12
    assert np.abs(one["interval"]).max() < 1e-9


def test_groups_are_drawn_whole() -> None:
    labels, scores = data()
    groups = np.arange(len(labels)) // 8
    alone = difference_to_mean(labels, (scores[0], 0.5), [(one, 0.5) for one in scores[1:]], resamples=100)
    found = difference_to_mean(
        labels, (scores[0], 0.5), [(one, 0.5) for one in scores[1:]], groups=groups, resamples=100
    )
    assert found["unit"] == "groups"
    assert found["macro"]["auroc"]["interval"] != alone["macro"]["auroc"]["interval"]


def test_what_cannot_be_compared_is_refused() -> None:
    labels, scores = data()
    with pytest.raises(ValueError, match="one model or more"):
        difference_to_mean(labels, (scores[0], 0.5), [])
    with pytest.raises(ValueError, match="level must lie between 0 and 1"):
        difference_to_mean(labels, (scores[0], 0.5), [(scores[1], 0.5)], level=1)
