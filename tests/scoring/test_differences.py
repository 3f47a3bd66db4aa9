"""Paired differences: by hand, by effect, and how often equals are called different."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlcls.scoring.differences import paired_differences
from mlcls.scoring.metrics import FIGURES, evaluate

nan = np.nan


def rows(images=300, attributes=5, seed=0):
    """Labels with unknowns, and two models of the same skill that err on different images."""
    random = np.random.default_rng(seed)
    labels = (random.random((images, attributes)) < np.linspace(0.1, 0.5, attributes)).astype(np.float32)
    image = random.standard_normal((images, attributes))  # what is hard about an image is hard for both
    one, other = (0.8 * image + 0.6 * random.standard_normal(image.shape) + 1.2 * labels for _ in range(2))
    labels[random.random(labels.shape) < 0.2] = nan
    return labels, one, other


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6))
def test_differences_are_those_of_evaluate(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    other = (1 - scores) ** 2
    found = paired_differences(labels, [(scores, thresholds), (other, 0.3)], resamples=30, seed=seed)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    first, second = evaluate(labels, scores, thresholds), evaluate(labels, other, 0.3)
    (model,) = found["models"]
    pairs = [(model[part], first[part], second[part]) for part in ("macro", "micro", "samples")]
    pairs += zip(model["attributes"], first["attributes"], second["attributes"], strict=True)
    names = ("hamming_loss", "exact_match", "coverage_error", "label_ranking_average_precision")
    pairs.append(({name: model[name] for name in names}, first, second))
    for part, before, after in pairs:
        for name in [name for name, value in part.items() if isinstance(value, dict)]:
            difference, interval = part[name]["difference"], part[name]["interval"]
            if before[name] is None:
                assert (difference, interval) == (None, None)
            else:
                assert difference == pytest.approx(after[name] - before[name], abs=1e-9)
                assert interval is None or interval[0] - 1e-9 <= difference <= interval[1] + 1e-9


def test_a_model_differs_from_itself_by_nothing():
    labels, scores, _ = rows()
    (model,) = paired_differences(labels, [(scores, 0.5), (scores, 0.5)], resamples=50)["models"]
    for part in (model["macro"], model["micro"]):
        assert all(part[name] == {"difference": 0, "interval": [0, 0]} for name in FIGURES)
    assert {(row["changed"], row["p_adjusted"]) for row in model["attributes"]} == {(False, 1.0)}


def test_pairing_makes_the_difference_of_like_models_narrow():
    labels, one, other = rows()
    nearly = one + 0.05 * other
    paired = paired_differences(labels, [(one, 0.5), (nearly, 0.5)])["models"][0]["macro"]["auroc"]
    apart = paired_differences(labels, [(one, 0.5), (other, 0.5)])["models"][0]["macro"]["auroc"]
    assert np.diff(paired["interval"])[0] < 0.3 * np.diff(apart["interval"])[0]


def test_the_attribute_that_changed_is_named():
    labels, one, other = rows()
    random = np.random.default_rng(1)
    other[:, 3] = random.standard_normal(len(other))  # the second model has lost it
    names = ["a", "b", "c", "d", "e"]
    found = paired_differences(labels, [(one, 0.6), (other, 0.6), (one, 0.6)], attributes=names)
    lost, same = found["models"]
    assert [row["name"] for row in lost["attributes"] if row["changed"]] == ["d"]
    assert lost["attributes"][3]["average_precision"]["interval"][1] < 0
    assert lost["attributes"][3]["p_adjusted"] < 0.01
    assert not any(row["changed"] for row in same["attributes"])
    assert (found["unit"], found["resamples"], found["level"]) == ("images", 1000, 0.95)


def test_copies_in_groups_are_no_more_evidence():
    labels, one, other = rows()
    copies = np.repeat(np.arange(len(labels)), 4)
    models = [(one[copies], 0.5), (other[copies], 0.5)]
    once = paired_differences(labels, [(one, 0.5), (other, 0.5)])["models"][0]["macro"]["f1"]
    found = paired_differences(labels[copies], models, groups=copies)
    assert found["unit"] == "groups"
    grouped = found["models"][0]["macro"]["f1"]
    assert grouped["difference"] == pytest.approx(once["difference"])
    assert np.diff(grouped["interval"]) == pytest.approx(np.diff(once["interval"]), rel=0.15)


def test_a_difference_that_no_resample_moves():
    labels = np.tile([[1.0], [0.0]], (10, 1))
    perfect, silent = labels * 0.8 + 0.1, labels * 0.2 + 0.1
    (model,) = paired_differences(labels, [(perfect, 0.5), (silent, 0.5)])["models"]
    (row,) = model["attributes"]
    assert row["f1"]["difference"] == -1
    assert row["f1"]["interval"] == pytest.approx([-1, -(0.025 ** (1 / 10))])
    assert row["p_adjusted"] == pytest.approx(2 * 2 * 0.5**10)  # ten signs, two figures
    assert row["changed"]


def test_a_difference_of_precision_rests_on_the_model_that_predicts_less():
    labels = np.repeat([1.0, 0.0], 100)[:, None]
    all_right = labels * 0.8 + 0.1
    few_wrong, silent = np.full((200, 1), 0.1), np.full((200, 1), 0.1)
    few_wrong[-8:] = 0.9
    found = paired_differences(labels, [(all_right, 0.5), (few_wrong, 0.5), (silent, 0.5)])["models"]
    reach = 1 - 0.025 ** (1 / 8)
    for model, interval in zip(found, (pytest.approx([-1, reach - 1]), None), strict=True):
        for figures in (model["attributes"][0], model["macro"], model["micro"]):
            assert figures["precision"] == {"difference": -1, "interval": interval}


def test_a_difference_between_that_no_resample_moves_has_a_width():
    labels, good = [[1.0, 0, 1, 0]] * 8, [[0.9, 0.1, 0.7, 0.1]] * 8
    bad = [[0.9, 0.8, 0.7, 0.1]] * 8
    (model,) = paired_differences(labels, [(good, 0.5), (bad, 0.5)], resamples=50)["models"]
    reach = 1 - 0.025 ** (1 / 8)
    assert model["hamming_loss"]["interval"] == pytest.approx([0.25 - reach, 0.25 + reach])
    assert model["coverage_error"] == {"difference": 1, "interval": None}


def test_differences_on_the_same_images_are_not_independent():
    labels = np.zeros((100, 20))
    labels[:2] = 1
    (model,) = paired_differences(labels, [(labels, 0.5), (labels * 0.2, 0.5)], resamples=200)["models"]
    assert model["macro"]["recall"]["interval"] == pytest.approx([-1, -(0.025 ** (1 / 2))])


def test_holm_over_both_figures_of_all_attributes():
    """Ten, eight and six equal signs in F1, no difference of ranking: six tests, stepped down."""
    labels = np.full((20, 3), nan)
    for a, count in enumerate((10, 8, 6)):
        labels[: 2 * count, a] = np.tile([1, 0], count)
    scores = np.nan_to_num(labels)
    (model,) = paired_differences(labels, [(scores, 0.5), (scores * 0.2, 0.5)], resamples=100)["models"]
    expected = [6 * 2 * 0.5**10, 5 * 2 * 0.5**8, 4 * 2 * 0.5**6]
    assert [row["p_adjusted"] for row in model["attributes"]] == pytest.approx(expected)
    assert [row["changed"] for row in model["attributes"]] == [True, True, False]


def test_one_positive_or_none_is_not_tested():
    labels, one, other = rows(60, 3)
    labels[:, :2] = 0
    labels[0, 0] = 1
    (model,) = paired_differences(labels, [(one, 0.5), (other, 0.5)], resamples=100)["models"]
    assert [row["changed"] for row in model["attributes"][:2]] == [None, None]
    assert model["attributes"][0]["f1"]["difference"] is not None
    assert model["attributes"][0]["f1"]["interval"] is None
    assert model["attributes"][2]["changed"] is not None


def test_equals_are_seldom_called_different():
    """Two models of the same skill: any attribute named in at most a twentieth of comparisons, plus chance."""
    named = 0
    for seed in range(100):
        labels, one, other = rows(150, 5, seed)
        (model,) = paired_differences(labels, [(one, 0.6), (other, 0.6)], resamples=100)["models"]
        named += any(row["changed"] for row in model["attributes"])
    assert named / 100 <= 0.08


def test_what_does_not_fit_is_refused():
    labels, one, other = rows(20)
    with pytest.raises(ValueError, match="two models or more"):
        paired_differences(labels, [(one, 0.5)])
    with pytest.raises(ValueError, match="level must lie"):
        paired_differences(labels, [(one, 0.5), (other, 0.5)], level=95)
    with pytest.raises(ValueError, match=r"\(20, 5\) and \(19, 5\)"):
        paired_differences(labels, [(one, 0.5), (other[1:], 0.5)])
