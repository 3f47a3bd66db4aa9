"""The assessment: the entry of `evaluate` and what belongs beside it, ready for JSON."""

import dataclasses
import json

import numpy as np
import pytest

from mlcls.scoring.assessment import assess, with_cross_fitted
from mlcls.scoring.metrics import FIGURES, evaluate
from mlcls.scoring.thresholds import tune_report

nan = np.nan


@pytest.fixture(scope="module")
def table():
    """200 images: `hat` is well ranked, `bag` is noise, `tie` is never present, `fur` is unknown everywhere."""
    random = np.random.default_rng(0)
    labels = (random.random((200, 4)) < 0.3).astype(np.float32)
    labels[random.random((200, 4)) < 0.2] = nan
    labels[:, 2] = np.where(np.isnan(labels[:, 2]), nan, 0)
    labels[:, 3] = nan
    scores = random.random((200, 4)).astype(np.float32)
    scores[:, 0] = 0.6 * scores[:, 0] + 0.4 * (labels[:, 0] == 1)
    return labels, scores, ("hat", "bag", "tie", "fur")


@pytest.fixture(scope="module")
def entry(table):
    labels, scores, names = table
    return assess(labels, scores, 0.5, attributes=names, resamples=50)


def test_holds_all_that_evaluate_says(table, entry):
    labels, scores, names = table
    expected = evaluate(labels, scores, 0.5, attributes=names)
    for key, value in expected.items():
        if key != "attributes":
            assert entry[key] == value
    for found, row in zip(entry["attributes"], expected["attributes"], strict=True):
        assert {key: found[key] for key in row} == row


def test_names_what_cannot_be_told_from_chance(entry):
    assert entry["not_distinguishable"] == ["bag"]
    verdicts = [row["chance"]["distinguishable"] for row in entry["attributes"]]
    assert verdicts == [True, False, None, None]
    assert entry["attributes"][1]["chance"]["p_adjusted"] >= entry["attributes"][1]["chance"]["p"]


def test_an_interval_and_a_baseline_stand_beside_every_figure(entry):
    hat, _, tie, _ = entry["attributes"]
    for row in (hat, entry):
        assert set(row["baselines"]) >= {"always_present", "always_absent"}
    for name in FIGURES:
        low, high = hat["intervals"][name]
        assert low <= hat[name] <= high
        low, high = entry["intervals"]["macro"][name]
        assert low <= entry["macro"][name] <= high
        assert tie["intervals"][name] is None
        assert tie["baselines"]["always_present"][name] is None
    assert hat["baselines"]["base_rate"] == hat["positive"] / hat["known"]
    assert hat["baselines"]["always_present"]["recall"] == 1
    assert tie["baselines"]["base_rate"] == 0
    assert entry["intervals"]["unit"] == "images"
    assert entry["intervals"]["resamples"] == 50


def test_is_json_and_the_same_again(table, entry):
    labels, scores, names = table
    text = json.dumps(entry, allow_nan=False)
    assert text == json.dumps(assess(labels, scores, 0.5, attributes=names, resamples=50), allow_nan=False)


def test_groups_reach_the_intervals_and_the_test(table):
    labels, scores, names = table
    rows = np.repeat(np.arange(40), 5)
    copies = assess(labels[rows], scores[rows], 0.5, attributes=names, groups=rows, resamples=40)
    naive = assess(labels[rows], scores[rows], 0.5, attributes=names, resamples=40)
    once = assess(labels[:40], scores[:40], 0.5, attributes=names, resamples=40)
    assert copies["intervals"]["unit"] == "groups"
    assert copies["attributes"][0]["chance"] == once["attributes"][0]["chance"]
    assert naive["attributes"][0]["chance"]["p"] < copies["attributes"][0]["chance"]["p"]
    wide, narrow = (np.ptp(one["attributes"][0]["intervals"]["auroc"]) for one in (copies, naive))
    assert wide > 1.3 * narrow


def test_groups_of_one_image_each_are_no_groups(table, entry):
    labels, scores, names = table
    alone = assess(labels, scores, 0.5, attributes=names, groups=np.arange(200)[::-1], resamples=50)
    assert alone == entry


def test_without_resamples_there_are_no_intervals(table, entry):
    labels, scores, names = table
    plain = assess(labels, scores, 0.5, attributes=names, resamples=0)
    assert plain["intervals"] is None
    assert plain["attributes"][0]["intervals"] == dict.fromkeys(FIGURES)
    assert plain["attributes"][0]["chance"] == entry["attributes"][0]["chance"]
    with pytest.raises(ValueError, match="resamples"):
        assess(labels, scores, 0.5, resamples=-1)


@pytest.mark.parametrize("seed", [0, 1, 7, 11, 25, 77])
def test_odd_tables_are_assessed_too(random_case, seed):
    labels, scores, thresholds = random_case(seed)
    entry = assess(labels, scores, thresholds, resamples=10, seed=seed)
    json.dumps(entry, allow_nan=False)
    assert len(entry["attributes"]) == labels.shape[1]


def test_an_f1_on_the_labels_it_was_tuned_on_has_the_cross_fitted_one_beside() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.3).astype(np.float32)
    scores = np.clip(0.3 * labels + rng.random(labels.shape) * 0.7, 0, 1).astype(np.float32)
    tuned = tune_report(labels, scores)
    entry = assess(labels, scores, [one.threshold for one in tuned], resamples=20)
    beside = with_cross_fitted(entry, tuned)
    assert [row["cross_fitted"] for row in beside["attributes"]] == [one.cross_fitted for one in tuned]
    assert beside["cross_fitted"] == pytest.approx(np.mean([one.cross_fitted for one in tuned]))
    assert {key: beside[key] for key in entry if key != "attributes"} == {
        key: entry[key] for key in entry if key != "attributes"
    }
    other = tune_report(labels[:40], scores[:40])
    assert with_cross_fitted(entry, other) is entry  # tuned on other labels: its F1 here flatters nobody
    assert with_cross_fitted(entry, tune_report(labels, scores, "youden")) is entry


def test_a_mean_of_cross_fitted_figures_is_of_the_same_attributes_as_the_f1_beside_it() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((60, 3)) < 0.3).astype(np.float32)
    scores = np.clip(0.3 * labels + rng.random(labels.shape) * 0.7, 0, 1).astype(np.float32)
    labels[:, 2] = 0
    labels[0, 2] = 1  # one positive: nothing can be held out
    tuned = tune_report(labels, scores)
    beside = with_cross_fitted(assess(labels, scores, [one.threshold for one in tuned], resamples=20), tuned)
    assert beside["attributes"][2]["cross_fitted"] is None
    assert beside["attributes"][0]["cross_fitted"] is not None
    assert beside["cross_fitted"] is None
    before = [dataclasses.replace(one, cross_fitted=None) for one in tuned]
    entry = assess(labels, scores, [one.threshold for one in tuned], resamples=0)
    assert with_cross_fitted(entry, before) is entry  # thresholds of a version without cross-fitting
