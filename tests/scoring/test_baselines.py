"""Baselines: the figures of `evaluate` for scores that look at nothing."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from mlcls.scoring.baselines import base_rates, baselines
from mlcls.scoring.metrics import FIGURES, evaluate

nan = np.nan


@pytest.mark.parametrize("seed", range(40))
def test_equal_to_evaluating_constant_scores(random_case, seed):
    labels, _, _ = random_case(seed)
    found = baselines(labels)
    for answer, score in (("always_present", 0.9), ("always_absent", 0.1)):
        expected = evaluate(labels, np.full(labels.shape, score), 0.5)
        assert found["macro"][answer] == pytest.approx(expected["macro"])
        for row, reference in zip(found["attributes"], expected["attributes"], strict=True):
            assert row[answer] == pytest.approx({name: reference[name] for name in FIGURES})


def test_the_base_rate_is_of_known_labels():
    labels = np.array([[1, 0, nan], [0, 0, nan], [nan, 0, nan], [0, nan, nan]], dtype=np.float32)
    rows = baselines(labels)["attributes"]
    assert [row["base_rate"] for row in rows] == [pytest.approx(1 / 3), 0, None]
    assert rows[0]["always_present"]["f1"] == pytest.approx(0.5)
    assert rows[1]["always_present"] == rows[2]["always_absent"] == dict.fromkeys(FIGURES)


def test_labels_of_one_dimension_are_refused():
    with pytest.raises(ValueError, match="images, attributes"):
        baselines(np.zeros(3))


def test_base_rates_alone_rank_pooled_cells_as_scikit_learn_says() -> None:
    rng = np.random.default_rng(3)
    labels = (rng.random((80, 3)) < [0.1, 0.5, 0.9]).astype(np.float32)
    labels[rng.random(labels.shape) < 0.2] = np.nan
    known = ~np.isnan(labels)
    rates = np.broadcast_to(np.nanmean(labels, axis=0), labels.shape)
    blind = base_rates(labels)
    assert blind["micro"]["auroc"] == pytest.approx(roc_auc_score(labels[known], rates[known]))
    assert blind["micro"]["auroc"] > 0.8  # without a look at any image
    assert blind["macro"]["auroc"] == 0.5
    assert blind["hamming_loss"] == pytest.approx(np.mean((rates[known] >= 0.5) != labels[known]))


def test_answering_present_pooled_is_evaluate_at_threshold_zero() -> None:
    rng = np.random.default_rng(5)
    labels = (rng.random((50, 4)) < 0.4).astype(np.float32)
    labels[rng.random(labels.shape) < 0.3] = np.nan
    entry = evaluate(labels, np.full(labels.shape, 0.5, dtype=np.float32), 0.0)
    pooled = baselines(labels)["pooled"]
    for mean in ("micro", "samples"):
        assert pooled[mean] == pytest.approx(entry[mean])


def test_base_rates_of_nothing_known_are_undefined() -> None:
    blind = base_rates(np.full((4, 2), np.nan, dtype=np.float32))
    assert blind["hamming_loss"] is None
    assert set(blind["micro"].values()) == {None}
